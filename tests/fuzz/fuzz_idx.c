/* IDX files, plain, packed by the target, or packed bytes as they are. Input: a byte of flags, then two fields (fuzz.h): the
 * training images and labels, which are the test ones too. */
#include <zlib.h>

#include "fuzz_lazy.h"

static void put_packed(const char *name, const uint8_t *bytes, size_t size) {
  static uint8_t packed[1 << 17];
  z_stream stream = {
      .next_in = (Bytef *)(uintptr_t)bytes, .avail_in = (uInt)size, .next_out = packed, .avail_out = sizeof packed};
  FUZZ_CHECK(deflateInit2(&stream, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK); /* 16: with gzip's header */
  FUZZ_CHECK(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  (void)fuzz_put(name, packed, stream.total_out);
  (void)deflateEnd(&stream);
}

/* kind 0, 1: plain; 2: packed here; 3: already packed. */
static void put(const char *split, const char *kind_of_file, unsigned kind, const uint8_t *bytes, size_t size) {
  char plain[64], packed[80];
  (void)snprintf(plain, sizeof plain, "%s-%s", split, kind_of_file);
  (void)snprintf(packed, sizeof packed, "%s.gz", plain);
  (void)niti_system.unlink(fuzz_at(plain));
  (void)niti_system.unlink(fuzz_at(packed));
  if (kind < 2)
    (void)fuzz_put(plain, bytes, size);
  else if (kind == 2)
    put_packed(packed, bytes, size);
  else
    (void)fuzz_put(packed, bytes, size);
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
  const char *train = flags & 16 ? "emnist-digits-train" : "train", *test = flags & 16 ? "emnist-digits-test" : "t10k";
  put(train, "images-idx3-ubyte", flags & 3, images, image_bytes);
  put(train, "labels-idx1-ubyte", flags >> 2 & 3, labels, label_bytes);
  put(test, "images-idx3-ubyte", flags & 3, images, image_bytes);
  put(test, "labels-idx1-ubyte", flags >> 2 & 3, labels, label_bytes);
  const NitiStatus status = fuzz_status(niti_dataset_open(&set, fuzz_dir(), &options, NULL));
  if (flags & 128 || rarely) fuzz_lazy(set, &options, NULL);
  if (status == NITI_OK) {
    use(set, rarely);
    niti_dataset_close(set);
  }
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 4; ++j) {
      char name[80];
      (void)snprintf(name, sizeof name, "%s-%s%s", i ? train : test, j & 1 ? "images-idx3-ubyte" : "labels-idx1-ubyte",
                     j & 2 ? ".gz" : "");
      (void)niti_system.unlink(fuzz_at(name));
    }
  return 0;
}
