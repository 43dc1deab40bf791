"""The share of a replica's rate that is kept free for peaks and for replicas that are down."""

DEFAULT_HEADROOM = 0.3
#: Beyond this, a plan is a mistake: 20 replicas for the load of one.
MAX_HEADROOM = 0.95
