//! Glob patterns as KEYS, SCAN, CONFIG GET and the ACL match them.
