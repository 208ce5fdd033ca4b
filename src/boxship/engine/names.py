"""Ids, and names for containers that were given none: an adjective and a kind of ship or sea word."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable

ADJECTIVES = """
able amber ample apt azure balmy bold brave breezy bright brisk calm candid civil clever crisp curious daring deft
eager early easy fair famous fine firm fleet fond frank free fresh gallant gentle glad golden grand happy hardy
honest humble ideal jolly keen kind level light lively lucid lucky mellow merry mighty modest neat nimble noble
patient placid plucky polite prime proud quick quiet rapid ready robust royal serene sharp silent silver simple
sincere smart snug sober solid spry steady stout sturdy subtle sunny swift tidy tireless tranquil trim true vivid
warm wise witty zesty
"""
NOUNS = """
anchor ark barge barque beacon bosun bow brig bulwark buoy cabin canoe caravel catamaran clipper cog compass
coracle corvette crane crew cutter deck dhow dinghy dock dory ferry fleet frigate galleon galley gangway gig
harbour hatch hawser helm hoist hold hull jetty jib junk keel ketch knot lagoon launch ledger liner log lugger
mast mate mooring oar outrigger packet pallet pier pilot pinnace port prow quay raft rigging rudder sail sampan
schooner scow shallop skiff sloop spar stern steward tackle tanker tender tide tiller trawler trireme tug wharf
whaler wherry winch windlass xebec yacht yawl
"""


def new_id() -> str:
    """64 hex digits; the first twelve are never all decimal, or the short id would pass for a number as hostname."""
    while True:
        id = secrets.token_hex(32)
        if not id[:12].isdigit():
            return id


def new_name(is_free: Callable[[str], bool]) -> str:
    """A free name; with a number behind it when chance keeps hitting taken ones."""
    for attempt in range(100):
        name = f"{random.choice(ADJECTIVES.split())}_{random.choice(NOUNS.split())}"
        if attempt >= 6:
            name += str(random.randrange(10 ** (attempt // 6)))
        if is_free(name):
            return name
    return new_id()[:16]
