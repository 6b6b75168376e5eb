//! The program: see `boot`.

fn main() -> std::process::ExitCode {
    carnelian_server::boot::main()
}
