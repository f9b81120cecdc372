//! The server side of the NBD protocol, without input or output.
//!
//! NBD (network block device) is how QEMU, the Linux kernel and a family of tools reach a disk that
//! another program serves. This crate turns bytes from a client into decisions and decisions into
//! bytes; sockets, buffers and the disk belong to the caller. It allocates nothing and waits for
//! nothing.
//!
//! | module | its one job |
//! | --- | --- |
//! | [`export`] | what a server offers |
//! | [`handshake`] | from the first byte to an agreed export: fixed newstyle, options |
//! | [`request`] | the requests of a client, distrusted |
//! | [`reply`] | answers, simple and structured |
//! | `wire` | numbers of the protocol, and reading of big-endian fields |
//!
//! Source: the protocol description of the NBD project, `doc/proto.md`. Spoken here: fixed newstyle,
//! `EXPORT_NAME`, `ABORT`, `LIST`, `INFO`, `GO`, `STRUCTURED_REPLY`, `LIST_META_CONTEXT`,
//! `SET_META_CONTEXT` with `base:allocation`. Refused with an error that the protocol has for it:
//! TLS, extended headers and whatever comes later.
//!
//! Invariants:
//! 1. No length that a client names is believed before it is compared with what is there, and none
//!    makes this crate read or hold more than [`handshake::OPTION_BYTES_MAX`] bytes.
//! 2. A request that passes [`request::Request::parse`] lies inside the export and is aligned.

#![no_std]
#![forbid(unsafe_code)]

pub mod export;
pub mod handshake;
pub mod reply;
pub mod request;
mod wire;

#[cfg(test)]
mod tests;
