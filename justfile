# Short names; README has the two commands that matter.

# Build and serve
run *arguments:
    cargo run --release -- {{arguments}}

# All tests, with the server they drive
test:
    cargo test --workspace

# What CI runs
check:
    bash .ci/run

# A quicker release build, for measuring by hand
fast:
    cargo build --profile fast
