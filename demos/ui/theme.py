"""The look of the explorer: one restrained accent (viridis' teal), neutral greys, the fonts the visitor's system has.

Nothing is fetched from the network for it. Colours and sizes live here, layout in demos/ui/web/style.css.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gradio as gr


def theme() -> gr.themes.Base:
    """The Gradio theme, light and dark."""
    import gradio as gr

    teal = gr.themes.Color(
        name="teal",
        c50="#eef8f7",
        c100="#d5eeec",
        c200="#aedfdb",
        c300="#7cc9c3",
        c400="#47aca5",
        c500="#21918c",
        c600="#1a7571",
        c700="#175d5b",
        c800="#154a49",
        c900="#123c3c",
        c950="#0a2526",
    )
    base = gr.themes.Base(
        primary_hue=teal,
        secondary_hue=teal,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_md,
        font=("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"),
        font_mono=("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"),
    )
    return base.set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="#0d1117",
        background_fill_primary_dark="#151b23",
        background_fill_secondary_dark="#0d1117",
        block_background_fill="white",
        block_background_fill_dark="#151b23",
        border_color_primary="*neutral_200",
        border_color_primary_dark="#2a323d",
        block_border_width="1px",
        block_border_color_dark="#2a323d",
        block_shadow="none",
        block_radius="*radius_lg",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_400",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_300",
        block_title_text_weight="500",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        input_background_fill="white",
        input_background_fill_dark="#0d1117",
        input_border_width="1px",
        input_border_color="*neutral_300",
        input_border_color_dark="#36404d",
        input_border_color_focus="*primary_500",
        input_border_color_focus_dark="*primary_400",
        input_shadow="none",
        input_shadow_focus="0 0 0 3px rgba(33, 145, 140, .18)",
        input_shadow_focus_dark="0 0 0 3px rgba(71, 172, 165, .25)",
        checkbox_label_background_fill="*neutral_100",
        checkbox_label_background_fill_dark="#0d1117",
        checkbox_label_border_width="0px",
        checkbox_border_color="*neutral_300",
        checkbox_border_color_dark="#36404d",
        checkbox_background_color="white",
        checkbox_background_color_dark="#0d1117",
        slider_color="*primary_500",
        slider_color_dark="*primary_400",
        loader_color="*primary_500",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
        link_text_color="*primary_600",
        link_text_color_dark="*primary_300",
    )
