"""The page on which people compare pairs, drawn by gradio."""

import gradio as gr

from evaluation.verdicts.annotation import ANSWERS, Annotation

WORDS = {"first": "The first is better", "tie": "Equally good", "second": "The second is better"}
RULES = "Which reply would you rather get? You are not progress who wrote which, and the order is random."


def page(annotation: Annotation, accounts: bool = False) -> gr.Blocks:
    """The page; without accounts everyone writes their name. Texts are shown as text: a reply may hold markup."""

    def shown(name: str):
        item = annotation.next(name) if name else None
        done, count = annotation.progress(name)
        progress = f"{done} of {count} pairs" if name else "Write your name to begin."
        progress = progress if item or not name else f"{progress}: all done, thank you."
        texts = (item.prompt, item.first, item.second) if item else ("", "", "")
        return (*texts, progress, item, *(gr.update(interactive=item is not None) for _ in ANSWERS))

    def who(name: str, request: gr.Request) -> str:
        return (request.username if accounts else name or "").strip()

    def answering(word: str):
        def answer(name: str, item, request: gr.Request):
            if item is not None:
                annotation.answer(who(name, request), item, word)
            return shown(who(name, request))

        return answer

    with gr.Blocks(title="Which reply is better?", analytics_enabled=False) as blocks:
        gr.Markdown(RULES)
        name = gr.Textbox(label="Your name", visible=not accounts)
        item = gr.State(None)
        prompt = gr.Textbox(label="Prompt", lines=4, interactive=False)
        with gr.Row():
            first = gr.Textbox(label="First", lines=8, interactive=False)
            second = gr.Textbox(label="Second", lines=8, interactive=False)
        with gr.Row():
            buttons = {word: gr.Button(WORDS[word], interactive=False) for word in ANSWERS}
        status = gr.Markdown()
        outputs = [prompt, first, second, status, item, *buttons.values()]
        for word, button in buttons.items():
            button.click(answering(word), [name, item], outputs)

        def begin(name: str, request: gr.Request):
            return shown(who(name, request))

        name.change(begin, [name], outputs)
        blocks.load(begin, [name], outputs)
    return blocks
