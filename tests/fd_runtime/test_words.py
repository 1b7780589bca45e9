"""A text is read in the same words wherever it is read."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fd_protocol.errors import InvalidValueError
from fd_protocol.manifest import Task
from fd_runtime.samples import DataError, read_text
from fd_runtime.words import Vocabulary, sentences, words_of

WORDS = ("who's", "there", "nay", "answer", "me", "été", "9")
TASK = Task(WORDS, (3,), "int32", vocabulary=len(WORDS) + 2, tokens="words")
NOTHING, OTHER = len(WORDS), len(WORDS) + 1
TEXTS = st.lists(st.sampled_from([*WORDS, "stand", ".", "\n\n", "!", "\n", ",", "-"]), max_size=30).map(" ".join)


def vocabulary(task=TASK):
    return Vocabulary.of(task)


def test_words_are_letters_and_digits_in_lower_case_with_apostrophes_inside():
    assert words_of("Who’s 'there'? NAY-answer_me, été: 9!") == ["who's", "there", "nay", "answer", "me", "été", "9"]


def test_a_sentence_ends_with_its_mark_or_an_empty_line_and_a_line_is_no_end():
    assert sentences("Nay,\nanswer me. Stand!\n \nThere") == [["nay", "answer", "me"], ["stand"], [], ["there"]]
    assert sentences("Nay.")[-1] == []


def test_a_sample_is_what_stands_before_a_word_in_its_sentence_and_the_word_is_its_label():
    samples, labels = vocabulary().rows("Who's there? Nay, stand: answer me")
    assert [WORDS[label] for label in labels] == ["who's", "there", "nay", "answer", "me"]
    assert samples.tolist() == [
        [NOTHING, NOTHING, NOTHING],
        [NOTHING, NOTHING, 0],
        [NOTHING, NOTHING, NOTHING],
        [NOTHING, 2, OTHER],
        [2, OTHER, 3],
    ]
    assert samples.dtype == np.int32
    assert labels.dtype == np.int64


@given(TEXTS)
def test_what_is_asked_of_a_text_is_what_was_learnt_of_it(text):
    """The context of each beginning of a text is the sample of the word that follows."""
    samples, labels = vocabulary().rows(text)
    assert samples.shape == (len(labels), 3)
    begun = [
        " ".join(sentence[:place])
        for sentence in sentences(text)
        for place, word in enumerate(sentence)
        if word in WORDS
    ]
    assert [row.tolist() for row in samples] == [vocabulary().context(before).tolist() for before in begun]


@given(TEXTS, st.sampled_from([". ", "! ", "?", "\n\n"]))
def test_what_was_said_before_a_sentence_is_forgotten(text, end):
    assert vocabulary().context(f"{text}{end}nay").tolist() == [NOTHING, NOTHING, 2]


@pytest.mark.parametrize("text", ["", " ", "...", "stand stand", "\n\n"])
def test_a_text_without_a_word_that_is_known_has_no_rows(text):
    samples, labels = vocabulary().rows(text)
    assert samples.shape == (0, 3)
    assert labels.shape == (0,)


def test_people_can_read_a_sample():
    assert vocabulary().said(vocabulary().context("stand there").tolist()) == ["...", "there"]


def test_a_task_of_other_tokens_reads_no_text():
    with pytest.raises(InvalidValueError, match="reads no words"):
        vocabulary(replace(TASK, tokens=None))


@pytest.mark.parametrize("word", ["Nay", "two words", "end.", "don’t"])
def test_a_class_that_no_text_can_hold_is_no_word(word):
    with pytest.raises(InvalidValueError, match="no word that a text can hold"):
        vocabulary(replace(TASK, classes=(word, *WORDS[1:])))


def test_a_text_that_is_none_is_told_by_its_name(tmp_path):
    letter = tmp_path / "letter.txt"
    letter.write_text("Nay, answer me", "utf-8")
    assert read_text(letter, TASK)[1].tolist() == [2, 3, 4]
    letter.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"letter\.txt"):
        read_text(letter, TASK)
    with pytest.raises(DataError, match=r"nowhere\.txt"):
        read_text(tmp_path / "nowhere.txt", TASK)
    with pytest.raises(DataError, match="reads no words"):
        read_text(letter, replace(TASK, tokens=None))
