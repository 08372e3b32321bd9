"""An independent numpy implementation of docs/arithmetic.md: it trains small networks bit for bit as niti must."""
