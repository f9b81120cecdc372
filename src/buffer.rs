//! Ownership of memory while devices work on it. The only unsafe code of the core.
//!
//! A borrow that ends when a call returns is unsound once hardware writes to the memory later, so
//! nothing here borrows. Whoever owns memory *lends* it: a linear token for a range goes out, and
//! the memory is usable again only when every byte is back.
//!
//! | lender | token that goes out | whole again |
//! | --- | --- | --- |
//! | [`Loan`] over an [`IoBuffer`] | one [`Lease`] | [`Loan::redeem`] |
//! | [`LentOp`] over a split request | a [`Lease`] per part | [`LentOp::try_whole`] |
//! | [`Arena`] over `'static` memory | [`Part`], staging [`Lease`], op records | [`Arena::finish`] |
//!
//! Invariants, on which every SAFETY argument below rests:
//! 1. **Linear.** No token is `Clone` or `Copy`, has public fields or a public constructor, and no
//!    safe code ever gets a `&mut Lease` or `&mut Record` that `mem::swap` could abuse.
//! 2. **Disjoint.** A lender cuts tokens from a cursor that only moves forward, so at any time the
//!    tokens that exist cover disjoint bytes, and no byte that its lender could still touch.
//! 3. **Conservation.** A lender counts the bytes out and takes back only tokens that lie inside its
//!    range. By 1 and 2 such a token descends from this lender, so "bytes out = 0" proves that no
//!    other token for the range exists. No tag, generation or owner id enters the argument, hence a
//!    device that mixes up its completions can confuse data but never memory.
//! 4. **Leak rather than free.** Dropping a lender or a token leaks the memory behind it. No address
//!    is ever reused while a token for it may exist.
//!
//! The files below this one are parts of this module: they share its private fields, and nothing else
//! does. What it does not do: it never forms a Rust reference to memory that is lent, except for
//! the `&[u8]`/`&mut [u8]` that callers of `copy_*` pass for the *other* side of a copy.
#![allow(unsafe_code)]

mod arena;
mod lease;
mod lent;
mod op;
mod queue;

pub use arena::{Arena, Part};
pub use lease::{IoBuffer, Lease, Loan};
pub use lent::LentOp;
pub use op::{Fingerprint, Head, Op};
pub use queue::{OpPool, OpQueue};

/// Most leases that one operation carries.
///
/// Copy-on-write of a partial block needs three (head, guest data, tail); longer guest lists are
/// split by the front end.
pub const SEGMENTS_MAX: usize = 8;

/// Alignment that an arena must have, and that staging memory gets.
pub const ARENA_ALIGN: usize = 4096;

static_assertions::assert_eq_size!(Option<Op>, usize);
static_assertions::assert_eq_size!(Option<LentOp>, usize);
static_assertions::assert_impl_all!(Op: Send);
static_assertions::assert_not_impl_any!(Op: Sync, Clone, Copy);
static_assertions::assert_impl_all!(Lease: Send);
static_assertions::assert_not_impl_any!(Lease: Sync, Clone, Copy);
#[cfg(target_pointer_width = "64")]
static_assertions::const_assert!(core::mem::size_of::<Option<Lease>>() == 16);

#[cfg(test)]
mod tests;
