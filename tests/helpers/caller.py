"""Who calls a handler of the page as a function: stands for gr.Request, of which handlers need a session."""


class Visitor:
    def __init__(self, session_hash: str = "a"):
        self.session_hash = session_hash
