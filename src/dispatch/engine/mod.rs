//! The pure machine from entries to effects: due-queue, claims, in flight, settles.
