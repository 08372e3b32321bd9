/* CIFAR's files. Input: a byte that says which, a field for the class names (fuzz.h), and the records; an uneven rest of them is
 * filled up half of the time. */
#include "fuzz_lazy.h"

enum { RECORD_MAX = 2 + 3072, RECORDS_MAX = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static uint8_t records[RECORDS_MAX * RECORD_MAX];
  static const char *const names[] = {"data_batch_1.bin", "data_batch_2.bin",    "data_batch_3.bin", "data_batch_4.bin",
                                      "data_batch_5.bin", "test_batch.bin",      "train.bin",        "test.bin",
                                      "batches.meta.txt", "fine_label_names.txt"};
  const uint8_t *text;
  NitiDataset *set;
  char hash[65];
  const bool rarely = fuzz_rarely(data, size);
  if (size < 1) return 0;
  const unsigned flags = *data++;
  --size;
  const NitiDataOptions options = {.kind = rarely ? NITI_DATA_AUTO : flags & 1 ? NITI_DATA_CIFAR100 : NITI_DATA_CIFAR10};
  const size_t text_bytes = fuzz_field(&text, &data, &size), record = flags & 1 ? RECORD_MAX : RECORD_MAX - 1;
  memset(records, 0, sizeof records);
  if (size > sizeof records) size = sizeof records;
  memcpy(records, data, size);
  size_t bytes = flags & 2 ? size : (size + record - 1) / record * record;
  if (bytes > sizeof records) bytes = sizeof records;
  for (int i = flags & 1 ? 6 : 0; i < (flags & 1 ? 8 : 6); ++i) (void)fuzz_put(names[i], records, bytes);
  if (text_bytes) (void)fuzz_put(names[flags & 1 ? 9 : 8], text, text_bytes);
  const NitiStatus status = fuzz_status(niti_dataset_open(&set, fuzz_dir(), &options, NULL));
  if (flags & 128 || rarely) fuzz_lazy(set, &options, NULL);
  if (status == NITI_OK) {
    int32_t mean[NITI_CHANNELS_MAX], std[NITI_CHANNELS_MAX];
    for (int64_t i = 0; i < niti_dataset_count(set, NITI_TRAIN); ++i)
      FUZZ_CHECK(niti_dataset_label(set, NITI_TRAIN, i) < niti_dataset_classes(set));
    for (int32_t i = 0; i < niti_dataset_classes(set); ++i) (void)niti_dataset_class_label(set, i);
    if (rarely) (void)fuzz_status(niti_dataset_statistics(set, mean, std));
    (void)fuzz_status(niti_dataset_hash(set, NITI_TEST, hash));
    niti_dataset_close(set);
  }
  for (int i = 0; i < 10; ++i) (void)niti_system.unlink(fuzz_at(names[i]));
  return 0;
}
