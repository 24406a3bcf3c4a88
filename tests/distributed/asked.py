"""What is asked as an actor is, and answers in this process."""

from types import SimpleNamespace


class Asked:
    """`asked.word.remote(…)` is `answering.word(…)`; every word and its arguments are kept."""

    def __init__(self, answering):
        self.answering, self.words = answering, []

    def __getattr__(self, word):
        def remote(*arguments, **options):
            self.words.append((word, *arguments))
            return getattr(self.answering, word)(*arguments, **options)

        return SimpleNamespace(remote=remote)
