/* Turns elements from one byte order to the other. */
#include "platform/bytes.h"

#include <string.h>

void niti_bytes_reverse(void *data, size_t count, size_t size) {
  uint8_t *bytes = data;
  for (size_t i = 0; i < count; ++i, bytes += size) {
    for (size_t low = 0, high = size - 1; low < high; ++low, --high) {
      const uint8_t byte = bytes[low];
      bytes[low] = bytes[high];
      bytes[high] = byte;
    }
  }
}

void niti_bytes_little(void *data, size_t count, size_t size) {
  if (NITI_BYTES_BIG && size > 1) niti_bytes_reverse(data, count, size);
}

const uint8_t *niti_bytes_piece(size_t *count, uint8_t buffer[NITI_BYTES_PIECE], const void *data, size_t at, size_t bytes,
                                size_t size) {
  *count = bytes - at;
  if (!NITI_BYTES_BIG || size == 1) return (const uint8_t *)data + at;
  if (*count > NITI_BYTES_PIECE) *count = NITI_BYTES_PIECE;
  memcpy(buffer, (const uint8_t *)data + at, *count);
  niti_bytes_little(buffer, *count / size, size);
  return buffer;
}
