"""Words of a text as token numbers: what a model of the next word reads, and what it learns from.

    "Who's there? Nay, answer me"  -->  [who's there] [nay answer me]        sentences of words
    [nay answer] of 4, then "me"   -->  n n 17 803                  -->  12  a sample and its label

    0 .. n - 1   the classes of the task, in their order: a word that can be predicted is a class
    n            nothing: before a sentence begins
    n + 1        any other word

Words are letters and digits in lower case, with apostrophes inside. A sentence ends with . ! or ?, and with an empty
line; what was said before it is forgotten. Workstation and devices read by these functions.

What is deliberately absent: parts of words. A class is what a person sees as a suggestion, so the words are in the
manifest already, and to find them needs neither a library nor a file of its own (docs/adr/0037-words.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fd_protocol.errors import InvalidValueError
from fd_protocol.manifest import Task
from fd_runtime.models.model import I32, I64

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_END = re.compile(r"[.!?]|\n\s*\n")


def words_of(text: str) -> list[str]:
    """Return the words of a text, in lower case."""
    return _WORD.findall(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").lower())


def sentences(text: str) -> list[list[str]]:
    """Return the words of each sentence, of the last one too, which is empty where nothing has begun yet."""
    return [words_of(piece) for piece in _END.split(text)]


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """The words of a task.

    Attributes:
        numbers: of the words that are classes, in their order.
        length: tokens of a sample.
    """

    numbers: Mapping[str, int]
    length: int

    @classmethod
    def of(cls, task: Task) -> Vocabulary:
        """Return the vocabulary of a task; asked again, the same one.

        Raises:
            InvalidValueError: its tokens are no words.
        """
        return _vocabulary(task)

    def context(self, text: str) -> I32:
        """Return the sample of which the word after `text` is asked: int32 [length]."""
        context: I32 = self._samples([sentences(text)[-1]])[-1]
        return context

    def rows(self, text: str) -> tuple[I32, I64]:
        """Return a sample for each word of a text that is a class, int32 [n, length], and these words int64 [n]."""
        said = [sentence for sentence in sentences(text) if sentence]
        after = np.array([self.numbers.get(word, -1) for sentence in said for word in sentence], np.int64)
        # `_samples` has one more for each sentence: of what comes after its last word.
        ends = np.cumsum([len(sentence) + 1 for sentence in said]) - 1
        before = np.delete(self._samples(said), ends, axis=0) if said else self._samples([[]])[:0]
        return before[after >= 0], after[after >= 0]

    def said(self, tokens: Sequence[int]) -> list[str]:
        """Return the words of a sample, for people; `...` for one that is no class."""
        words = (*self.numbers, "", "...")
        return [words[token] for token in tokens if words[token]]

    def _samples(self, said: Sequence[Sequence[str]]) -> I32:
        """Return what stands before each word of a sentence, and before its end: int32 [words + sentences, length]."""
        nothing = len(self.numbers)
        windows = []
        for sentence in said:
            tokens = [nothing] * self.length + [self.numbers.get(word, nothing + 1) for word in sentence]
            windows.append(np.lib.stride_tricks.sliding_window_view(np.array(tokens, np.int32), self.length))
        return np.ascontiguousarray(np.concatenate(windows))


@lru_cache(maxsize=4)
def _vocabulary(task: Task) -> Vocabulary:
    if task.tokens != "words":
        raise InvalidValueError('the task reads no words: its `tokens` are not "words"')
    for word in task.classes:
        if words_of(word) != [word]:
            raise InvalidValueError(f"class {word!r} is no word that a text can hold")
    return Vocabulary({word: number for number, word in enumerate(task.classes)}, task.sample_shape[0])
