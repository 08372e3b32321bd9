/* JPEG and PNG files: decoded and fitted in several ways. Input: a byte of flags, then the file. The mutator keeps the checksums
 * of a PNG's chunks right, and changes its pixels before they are packed. */
#include <zlib.h>

#include "data/image.h"
#include "fuzz.h"

enum { SIGNATURE = 8, FRAME = 12, UNPACKED_MAX = 1 << 14 };

static uint32_t get32(const uint8_t *p) { return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]; }

static void put32(uint8_t *p, uint32_t v) {
  for (int i = 0; i < 4; ++i) p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static size_t change_packed(uint8_t *payload, size_t length, size_t room) {
  static uint8_t plain[UNPACKED_MAX];
  uLongf size = sizeof plain, packed = (uLongf)room;
  if (uncompress(plain, &size, payload, (uLong)length) != Z_OK) return LLVMFuzzerMutate(payload, length, room);
  size = (uLongf)LLVMFuzzerMutate(plain, size, sizeof plain);
  uint8_t *again = malloc(room);
  FUZZ_CHECK(again);
  const bool fits = compress2(again, &packed, plain, size, 1) == Z_OK;
  if (fits) memcpy(payload, again, packed);
  free(again);
  return fits ? packed : LLVMFuzzerMutate(payload, length, room);
}

static size_t change_png(uint8_t *data, size_t size, size_t room, uint64_t random) {
  size_t starts[64], count = 0;
  for (size_t at = SIGNATURE; count < 64 && at + FRAME <= size && get32(data + at) <= size - at - FRAME;
       at += FRAME + get32(data + at))
    starts[count++] = at;
  if (!count) return LLVMFuzzerMutate(data, size, room);
  uint8_t *at = data + starts[fuzz_word(&random) % count], *payload = at + 8;
  const size_t length = get32(at), rest = size - (size_t)(payload + length - data), space = room - size + length;
  uint8_t *after = malloc(rest + 1), *changed = malloc(space + 1);
  FUZZ_CHECK(after && changed);
  memcpy(after, payload + length, rest);
  memcpy(changed, payload, length);
  const bool pixels = memcmp(at + 4, "IDAT", 4) == 0 && fuzz_word(&random) % 4;
  const size_t now = pixels ? change_packed(changed, length, space) : LLVMFuzzerMutate(changed, length, space);
  memcpy(payload, changed, now);
  memcpy(payload + now, after, rest);
  put32(at, (uint32_t)now);
  put32(payload + now, (uint32_t)crc32(crc32(0, NULL, 0), at + 4, (uInt)now + 4));
  free(after);
  free(changed);
  return size - length + now;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed) {
  uint64_t random = seed;
  if (size < 2 + SIGNATURE || data[1] != 0x89 || fuzz_word(&random) % 4 == 0) return LLVMFuzzerMutate(data, size, room);
  return 1 + change_png(data + 1, size - 1, room - 1, random);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint8_t pixels[8 * 8 * 3];
  if (size < 1) return 0;
  const unsigned flags = *data++;
  --size;
  const NitiShape shape = {1, 8, flags & 1 ? 4 : 8, flags & 2 ? 1 : 3};
  const NitiDataOptions options = {
      .fit = flags & 4 ? NITI_FIT_STRETCH : NITI_FIT_CROP, .pad = flags & 8 ? 3 : 0, .resize = flags & 16 ? 9 : 0};
  const NitiStatus glance = fuzz_status(niti_image_glance(data, size, "image"));
  if (fuzz_status(niti_image_read_bytes(data, size, "image", &options, shape, pixels)) == NITI_OK) FUZZ_CHECK(glance == NITI_OK);
  return 0;
}
