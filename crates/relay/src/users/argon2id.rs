//! One password against one hash, in memory that goes back to the system at once. It knows no users, and bounds nothing: how many
//! run at a time is `places`' matter.

use argon2::password_hash::phc;
use argon2::{Algorithm, Argon2, Block, Params, Version};

/// There was no memory for it.
#[derive(Debug)]
pub(super) struct NotVerifiable;

/// Blocks (KiB) of address space for each verification, however few of them are filled. The system's allocator keeps what is freed,
/// once for every thread that asked, unless it is larger than 32 MiB (glibc's `DEFAULT_MMAP_THRESHOLD_MAX`); what is not filled
/// takes no memory.
const ROOM: usize = 33 << 10;

/// Whether `password` is the one that `hash` was made of. The parameters of the hash itself are taken; the configuration has
/// bounded them. Fails when there is no memory.
pub(super) fn verify(password: &[u8], hash: &phc::PasswordHash) -> Result<bool, NotVerifiable> {
    let (Some(salt), Some(expected)) = (&hash.salt, &hash.hash) else { return Err(NotVerifiable) };
    let params = Params::try_from(hash).map_err(|_| NotVerifiable)?;
    let count = params.block_count();
    let mut blocks: Vec<Block> = Vec::new();
    blocks.try_reserve_exact(count.max(ROOM)).map_err(|_| NotVerifiable)?;
    blocks.resize(count, Block::new());
    let mut output = [0; phc::Output::MAX_LENGTH];
    let output = output.get_mut(..expected.len()).ok_or(NotVerifiable)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into_with_memory(password, salt, output, &mut blocks).map_err(|_| NotVerifiable)?;
    // Outputs are compared in constant time.
    phc::Output::new(output).map(|output| output == *expected).map_err(|_| NotVerifiable)
}
