/* IDX files, plain, packed by the target, or packed bytes as they are. Input: a byte of flags, then two fields (fuzz.h): the
 * training images and labels, which are the test ones too. */
#include <zlib.h>

#include "fuzz_lazy.h"

/* With the smallest tables, which come anew for each file. */
static void put_packed(const char *name, const uint8_t *bytes, size_t size) {
  static uint8_t packed[1 << 17];
  z_stream stream = {
      .next_in = (Bytef *)(uintptr_t)bytes, .avail_in = (uInt)size, .next_out = packed, .avail_out = sizeof packed};
  FUZZ_CHECK(deflateInit2(&stream, 1, Z_DEFLATED, 9 + 16, 1, Z_DEFAULT_STRATEGY) == Z_OK); /* 16: with gzip's header */
  FUZZ_CHECK(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  (void)fuzz_put(name, packed, stream.total_out);
  (void)deflateEnd(&stream);
}

/* Puts it down under a name: kind 0, 1: plain; 2: packed here; 3: already packed. */
static void put(const char *name, unsigned kind, const uint8_t *bytes, size_t size) {
  char packed[80];
  (void)stpcpy(stpcpy(packed, name), ".gz");
  if (kind < 2)
    (void)fuzz_put(name, bytes, size);
  else if (kind == 2)
    put_packed(packed, bytes, size);
  else
    (void)fuzz_put(packed, bytes, size);
}

static void take_away(const char *name, unsigned kind) {
  char packed[80];
  (void)stpcpy(stpcpy(packed, name), ".gz");
  (void)niti_system.unlink(fuzz_at(kind < 2 ? name : packed));
}

static void use(NitiDataset *set, bool rarely) {
  const NitiShape shape = niti_dataset_shape(set);
  const int64_t count = niti_dataset_count(set, NITI_TRAIN);
  int32_t mean[NITI_CHANNELS_MAX], std[NITI_CHANNELS_MAX];
  char hash[65];
  uint64_t sum = 0;
  for (int64_t i = 0; i < count; ++i) FUZZ_CHECK(niti_dataset_label(set, NITI_TRAIN, i) < niti_dataset_classes(set));
  const uint8_t *images = niti_dataset_images(set, NITI_TRAIN);
  for (int64_t i = 0; i < count * shape.h * shape.w * shape.c; ++i) sum += images[i];
  (void)fuzz_status(niti_dataset_hold_out(set, 0, 250000, sum));
  if (rarely) (void)fuzz_status(niti_dataset_statistics(set, mean, std));
  (void)fuzz_status(niti_dataset_hash(set, NITI_TRAIN, hash));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const uint8_t *images, *labels;
  NitiDataset *set;
  const bool rarely = fuzz_rarely(data, size);
  const NitiDataOptions options = {.kind = rarely ? NITI_DATA_AUTO : NITI_DATA_IDX};
  if (size < 1) return 0;
  const unsigned flags = *data++;
  --size;
  const size_t image_bytes = fuzz_field(&images, &data, &size), label_bytes = fuzz_field(&labels, &data, &size);
  static const char *const names[2][4] = {
      {"train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"},
      {"emnist-digits-train-images-idx3-ubyte", "emnist-digits-train-labels-idx1-ubyte", "emnist-digits-test-images-idx3-ubyte",
       "emnist-digits-test-labels-idx1-ubyte"}};
  const char *const *name = names[flags >> 4 & 1];
  for (int i = 0; i < 4; ++i)
    put(name[i], flags >> (i & 1 ? 2 : 0) & 3, i & 1 ? labels : images, i & 1 ? label_bytes : image_bytes);
  const NitiStatus status = fuzz_status(niti_dataset_open(&set, fuzz_dir(), &options, NULL));
  if (flags & 128 || rarely) fuzz_lazy(set, &options, NULL);
  if (status == NITI_OK) {
    use(set, rarely);
    niti_dataset_close(set);
  }
  for (int i = 0; i < 4; ++i) take_away(name[i], flags >> (i & 1 ? 2 : 0) & 3);
  return 0;
}
