"""Rankers, their encoder, and their losses: tensors in, tensors out.

Start with `rankers.py`. Letters in shapes: B contexts, N candidates, T tokens, M codes (vectors
that stand for one context), D width of a vector. A mask is True at real tokens or codes.
"""
