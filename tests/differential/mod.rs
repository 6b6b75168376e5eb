//! Two servers, one stream of random commands, and every difference between their answers.
