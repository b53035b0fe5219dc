"""The networks of a run: student towers, new or from a foundation model, teachers, which part learns, tokenizer and
words.
"""
