//! The program `tokenpool`, with the kinds of attributes that the library brings.

use std::process::ExitCode;

use tokenpool_cli::Program;

fn main() -> ExitCode {
    Program::new().main()
}
