//! Bytes that are no message of ours, each wrong in another way.

use bytes::Bytes;
use fermata_wire::{Envelope, MessageKind};

/// Levels of the nested arrays of a depth bomb; a decoder that recurses without
/// a bound ends with its stack.
const BOMB_LEVELS: usize = 200_000;

/// Messages that cannot be decoded as `kind`, by what is wrong with them.
/// `sound` is one that can.
///
/// # Panics
///
/// When `sound` is empty.
#[must_use]
pub fn messages(kind: MessageKind, sound: &[u8], seed: u64) -> Vec<(&'static str, Bytes)> {
    let other = if kind == MessageKind::Dead { MessageKind::Audit } else { MessageKind::Dead };
    let newer = Envelope { version: 99, ..Envelope::new(kind, None, b"\x80") };
    let bombed = depth_bomb();
    vec![
        ("nothing", Bytes::new()),
        ("noise", noise(seed, 300)),
        ("text", Bytes::from_static(b"{\"kind\":\"commands\"}")),
        ("cut", sound.get(..sound.len() - 1).expect("a sound message").to_vec().into()),
        ("trailing", [sound, b"\xc0"].concat().into()),
        ("newer", newer.encode().expect("an envelope").into()),
        ("other kind", Envelope::new(other, None, b"\x80").encode().expect("an envelope").into()),
        ("depth bomb", bombed.clone()),
        (
            "depth bomb within",
            Envelope::new(kind, None, &bombed).encode().expect("an envelope").into(),
        ),
    ]
}

/// Arrays within arrays.
#[must_use]
pub fn depth_bomb() -> Bytes {
    let mut bomb = vec![0x91; BOMB_LEVELS];
    bomb.push(0xc0);
    bomb.into()
}

/// Bytes that look random and are the same for the same seed (xorshift64*).
#[must_use]
pub fn noise(seed: u64, bytes: usize) -> Bytes {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_be_bytes()[0]
    };
    (0..bytes).map(|_| next()).collect::<Vec<_>>().into()
}
