/* SHA-256 over named tensors. */
#include "io/hash.h"

#include <stdlib.h>
#include <string.h>

#include "platform/bytes.h"
#include "platform/sha256.h"

struct NitiHash {
  NitiSha256 sha;
};

static void put_u32(NitiHash *hash, uint32_t v) {
  const uint8_t bytes[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
  niti_sha256_add(&hash->sha, bytes, sizeof bytes);
}

NitiStatus niti_hash_open(NitiHash **out) {
  *out = malloc(sizeof **out);
  if (!*out) return niti_fail(NITI_ERROR_MEMORY, "out of memory for a hash");
  niti_sha256_begin(&(*out)->sha);
  return NITI_OK;
}

void niti_hash_tensor(NitiHash *hash, const char *name, int ndim, const uint32_t *dims, int32_t exponent, const void *data,
                      size_t size) {
  uint8_t buffer[NITI_BYTES_PIECE];
  size_t bytes = size;
  niti_sha256_add_text(&hash->sha, name);
  put_u32(hash, (uint32_t)ndim);
  for (int i = 0; i < ndim; ++i) {
    put_u32(hash, dims[i]);
    bytes *= dims[i];
  }
  put_u32(hash, (uint32_t)exponent);
  for (size_t at = 0, count = 0; at < bytes; at += count) {
    const uint8_t *piece = niti_bytes_piece(&count, buffer, data, at, bytes, size);
    niti_sha256_add(&hash->sha, piece, count);
  }
}

void niti_hash_close(NitiHash *hash, char text[65]) {
  niti_sha256_end(&hash->sha, text);
  free(hash);
}
