"""Finds out why pulls on this node do or do not go through speil.

`facts` gathers what this node shows, `checks` turns it into findings with remedies (`region` and `border` for their
part), and `self_test` pulls an image and checks that the requests arrive.
"""
