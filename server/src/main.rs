fn main() -> std::process::ExitCode {
    kiops_server::program::main()
}
