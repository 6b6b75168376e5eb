//! Rules: what is refused, what is described, and that what is described is the same again.
