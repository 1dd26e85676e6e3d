"""How the page looks: a theme of its own for Gradio's parts, and the style sheet for ours.

Paper and ink, the green of a lake for what can be pressed, the orange of a beak where work goes on.
Fonts are those of the reader's system, so that the page asks nothing of the outside.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr

HERE = Path(__file__).parent
STYLE = HERE / "page.css"

_LAKE = gr.themes.Color(
    name="lake",
    c50="#eef7f6",
    c100="#d6ebe9",
    c200="#b0d8d5",
    c300="#82bfbb",
    c400="#55a5a1",
    c500="#2f8783",
    c600="#1a6b68",
    c700="#145653",
    c800="#124543",
    c900="#103937",
    c950="#072221",
)
_FEATHER = gr.themes.Color(
    name="feather",
    c50="#faf9f6",
    c100="#f3f1ec",
    c200="#e6e2da",
    c300="#d3cdc2",
    c400="#a29b8f",
    c500="#777066",
    c600="#5b554d",
    c700="#3d3a36",
    c800="#262523",
    c900="#1c1b1a",
    c950="#141413",
)
_SYSTEM = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_SYSTEM_MONO = ("ui-monospace", "SFMono-Regular", "Consolas", "monospace")


class CygnetTheme(gr.themes.Base):
    """Light and dark; the page follows what the system prefers, and a button changes it."""

    def __init__(self) -> None:
        super().__init__(
            primary_hue=_LAKE,
            secondary_hue=_LAKE,
            neutral_hue=_FEATHER,
            radius_size=gr.themes.sizes.radius_lg,
            font=_SYSTEM,
            font_mono=_SYSTEM_MONO,
        )
        self.name = "cygnet"
        self.set(
            color_accent="*primary_600",
            body_background_fill="*neutral_50",
            body_background_fill_dark="*neutral_950",
            background_fill_primary="#ffffff",
            background_fill_primary_dark="*neutral_900",
            background_fill_secondary="*neutral_50",
            background_fill_secondary_dark="*neutral_950",
            body_text_color="*neutral_800",
            body_text_color_dark="*neutral_100",
            body_text_color_subdued="*neutral_600",
            body_text_color_subdued_dark="*neutral_400",
            block_background_fill="transparent",
            block_background_fill_dark="transparent",
            block_border_width="0px",
            block_border_width_dark="0px",
            block_padding="0px",
            block_label_background_fill="transparent",
            block_label_background_fill_dark="transparent",
            block_title_text_weight="500",
            block_title_text_size="*text_sm",
            block_title_text_color="*neutral_700",
            block_title_text_color_dark="*neutral_300",
            block_info_text_color="*neutral_600",
            block_info_text_color_dark="*neutral_400",
            input_background_fill="#ffffff",
            input_background_fill_dark="*neutral_900",
            input_border_color="*neutral_300",
            input_border_color_dark="*neutral_700",
            input_border_color_focus="*primary_600",
            input_border_color_focus_dark="*primary_300",
            input_border_width="1px",
            input_placeholder_color="*neutral_500",
            input_placeholder_color_dark="*neutral_400",
            input_shadow_focus="0 0 0 3px *primary_100",
            input_shadow_focus_dark="0 0 0 3px *primary_800",
            button_primary_background_fill="*primary_600",
            button_primary_background_fill_hover="*primary_700",
            button_primary_background_fill_dark="*primary_300",
            button_primary_background_fill_hover_dark="*primary_200",
            button_primary_text_color="#ffffff",
            button_primary_text_color_dark="*primary_950",
            button_secondary_background_fill="transparent",
            button_secondary_background_fill_dark="transparent",
            button_secondary_background_fill_hover="*neutral_100",
            button_secondary_background_fill_hover_dark="*neutral_800",
            button_secondary_border_color="*neutral_300",
            button_secondary_border_color_dark="*neutral_700",
            button_secondary_text_color="*neutral_700",
            button_secondary_text_color_dark="*neutral_200",
            button_border_width="1px",
            border_color_primary="*neutral_200",
            border_color_primary_dark="*neutral_700",
            slider_color="*primary_600",
            slider_color_dark="*primary_300",
            link_text_color="*primary_700",
            link_text_color_dark="*primary_300",
        )
