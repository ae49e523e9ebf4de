"""Refuses wrong answers a second time, for `--replay-file`, which asks nothing and renders no default.

Rendering this line does it: {{ cookiecutter | refuse_wrong_answers }}
"""
