// What is pressed in our own HTML becomes an event of Gradio's: 'use', 'seed', 'vary', 'show', 'remove', 'example'.
element.addEventListener('click', async (event) => {
  const pressed = event.target.closest('[data-act]');
  if (!pressed) return;
  event.preventDefault();
  const act = pressed.dataset.act;
  if (act === 'shade') {
    const dark = document.body.classList.contains('dark');
    localStorage.setItem('cygnet-shade', dark ? 'light' : 'dark');
    document.body.classList.toggle('dark', !dark);
  } else if (act === 'link') {
    try {
      await navigator.clipboard.writeText(pressed.href);
      pressed.textContent = 'Copied';
    } catch {  // there is no clipboard on plain http, and in a frame it may be forbidden
      open(pressed.href);
    }
  } else {
    const {request, key} = {...pressed.closest('[data-request]')?.dataset, ...pressed.dataset};
    trigger(act, {request, key});
  }
});
