"""`python -m deploy.demo`, as build.py starts it."""

import sys

from deploy.demo.demo import main

sys.exit(main(sys.argv[1:]))
