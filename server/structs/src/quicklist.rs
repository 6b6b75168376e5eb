//! A linked list of listpacks.
