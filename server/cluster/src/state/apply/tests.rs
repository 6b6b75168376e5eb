//! Tests of every refusal, and of what changes do.
