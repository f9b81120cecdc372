//! `fvd serve`: clients that know the protocol, clients that do not, and clients that vanish.
//!
//! | file | its one job |
//! | --- | --- |
//! | `server` | a server in a process of its own |
//! | `wire` | a client made by hand, which can do what no library lets one do |
//! | `tools` | the clients that people use |
//! | `protocol` | requests, answers, refusals |
//! | `budget` | what requests cost in operations on files |
//! | `faults` | slow, silent, vanished and malicious clients, signals |
//! | `guest` | a Linux guest with a file system |
//! | `linux` | its kernel and virtual machine |
//! | `files` | what it shall do, and what must be in its files |

mod budget;
#[path = "../common/mod.rs"]
mod common;
mod faults;
mod files;
mod guest;
mod linux;
mod protocol;
mod server;
mod tools;
mod wire;
