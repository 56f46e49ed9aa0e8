"""Why do pulls on this node go through speil, or don't they?

`facts` gathers what can be seen from here, `checks` says what it means and what to do, `self_test` pulls an image and
watches for the request.
"""
