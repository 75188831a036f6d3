"""From files of Docker Compose to entries of the lab: read as compose reads them, then said in the lab's own words.

`files` reads (with `syntax`, `interpolate`, `merge` and `forms`), `translate` says, `written` writes. What cannot be
known from the files becomes a question (`ringfence.model.questions`), which a run refuses until it is answered.
"""
