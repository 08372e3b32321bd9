/* Arrays as .npy or .csv. Input: a byte of flags, then two fields (fuzz.h): samples and labels. */
#include "data/array.h"
#include "fuzz_lazy.h"

static void use(NitiArray *array) {
  uint64_t bytes = (uint64_t)array->bytes;
  unsigned sum = 0;
  for (int i = 0; i < array->ndim; ++i) bytes *= (uint64_t)array->dims[i];
  for (uint64_t i = 0; i < bytes; ++i) sum += ((const uint8_t *)array->data)[i];
  FUZZ_CHECK(sum + 1 > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char *const names[] = {"train_x.npy", "train_y.npy", "train_x.csv", "train_y.csv"};
  const uint8_t *part[2];
  NitiDataset *set;
  const bool rarely = fuzz_rarely(data, size);
  if (size < 1) return 0;
  const unsigned flags = *data++;
  --size;
  const NitiDataOptions options = {.kind = rarely ? NITI_DATA_AUTO : flags & 1 ? NITI_DATA_CSV : NITI_DATA_NPY};
  const char *const *name = flags & 1 ? names + 2 : names;
  const NitiDataRequest request = {.size = flags & 2 ? (NitiShape){1, 2, 2, 1} : (NitiShape){0},
                                   .need = NITI_SPLIT_BIT(NITI_TRAIN)};
  for (int i = 0; i < 2; ++i) {
    const size_t bytes = fuzz_field(&part[i], &data, &size);
    NitiArray array;
    const char *path = fuzz_put(name[i], part[i], bytes);
    if (fuzz_status(flags & 1 ? niti_csv_read(&array, path, i, 0, NULL) : niti_npy_read(&array, path)) == NITI_OK) use(&array);
    niti_array_close(&array);
  }
  const NitiStatus status = fuzz_status(niti_dataset_open(&set, fuzz_dir(), &options, &request));
  if (flags & 128 || rarely) fuzz_lazy(set, &options, &request);
  if (status == NITI_OK) {
    int32_t mean[NITI_CHANNELS_MAX], std[NITI_CHANNELS_MAX];
    for (int64_t i = 0; i < niti_dataset_count(set, NITI_TRAIN); ++i)
      FUZZ_CHECK(niti_dataset_label(set, NITI_TRAIN, i) < niti_dataset_classes(set));
    if (rarely) (void)fuzz_status(niti_dataset_statistics(set, mean, std));
    niti_dataset_close(set);
  }
  for (int i = 0; i < 2; ++i) (void)niti_system.unlink(fuzz_at(name[i]));
  return 0;
}
