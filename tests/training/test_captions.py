"""Captions and question sets: what they say and what they never say. No tensors."""

import re

from training.captions import UNSEEN_WORDS, sample_captions, with_article, write
from training.data import COLOURS, STYLES, is_held_out, read_subjects
from training.evaluate import questions


def test_a_caption_says_exactly_what_it_is_labelled_with():
    colours, phrases = list(COLOURS), [phrases for _, phrases in STYLES.values()]
    for caption in sample_captions(read_subjects()[:20], per_pair=8, seed=0):
        assert (caption.style >= 0) == any(
            phrase in caption.text for options in phrases for phrase in options
        )
        if caption.style >= 0:
            assert any(phrase in caption.text for phrase in phrases[caption.style])
        if caption.colour >= 0:
            assert colours[caption.colour] in caption.text


def test_the_same_seed_draws_the_same_captions():
    subjects = read_subjects()[:5]
    assert sample_captions(subjects, 4, seed=3) == sample_captions(subjects, 4, seed=3)
    assert sample_captions(subjects, 4, seed=3) != sample_captions(subjects, 4, seed=4)


def test_no_caption_ever_uses_an_unseen_word():
    text = "\n".join(c.text for c in sample_captions(read_subjects(), per_pair=32, seed=0))
    used = set(re.findall(r"[a-z]+", text.lower()))
    assert not used & {word for word in UNSEEN_WORDS if " " not in word}
    assert not [word for word in UNSEEN_WORDS if " " in word and word in text]


def test_every_unseen_word_names_a_subject_that_exists():
    icons = {subject.icon for subject in read_subjects()}
    assert set(UNSEEN_WORDS.values()) <= icons


def test_articles_follow_english():
    assert with_article("fox") == "a fox"
    assert with_article("owl") == "an owl"
    assert with_article("unicorn") == "a unicorn"
    assert with_article("jeans") == "jeans"


def test_the_showcase_prompt_is_one_that_training_can_draw():
    fox = next(s for s in read_subjects() if s.icon == "fox")
    text = write("{a}, {style}, on a {colour} background", "red fox", "3d render", "sky blue")
    assert text == "a red fox, 3d render, on a sky blue background"
    assert "red fox" in fox.names


def test_held_out_pairs_are_the_same_every_time_and_about_one_in_twenty():
    pairs = [(s.icon, style) for s in read_subjects() for style in STYLES]
    held_out = [pair for pair in pairs if is_held_out(*pair)]
    assert held_out == [pair for pair in pairs if is_held_out(*pair)]
    assert 0.03 < len(held_out) / len(pairs) < 0.07
    assert not [pair for pair in held_out if pair[0] == "fox"]


def test_questions_on_trained_and_held_out_pairs_do_not_mix():
    subjects, styles, sets = read_subjects(), list(STYLES), questions()
    for name, expected in (("trained pairs", False), ("held-out pairs", True)):
        for asked in sets[name]:
            assert is_held_out(subjects[asked.subject].icon, styles[asked.style]) is expected
