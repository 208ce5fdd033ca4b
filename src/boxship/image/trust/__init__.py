"""Whether an image may be used: signatures of two kinds, where they are kept, and the policy that asks for them."""
