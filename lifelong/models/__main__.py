"""`python -m lifelong.models`: the text of `docs/models.md`."""

import sys

from lifelong.models import models_page

sys.stdout.write(models_page())
