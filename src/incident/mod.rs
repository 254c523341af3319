//! Evidence of an incident as a directory that can be checked later.
//! Owns: the manifest over its files, the inventory of a state root, and what verification finds.
//! May touch: an evidence directory; a state root, for reading.
//! Never: judges the evidence, or writes outside of the directory it was given.

pub mod directory;
pub mod inventory;
pub mod manifest;
