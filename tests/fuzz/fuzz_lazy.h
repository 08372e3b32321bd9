/* Data sets whose images stay in their files, beside the same read into memory. */
#ifndef NITI_TESTS_FUZZ_LAZY_H
#define NITI_TESTS_FUZZ_LAZY_H

#include "data/dataset.h"
#include "fuzz.h"

static inline void fuzz_compare_images(const NitiDataset *kept, const NitiDataset *left, NitiSplit split) {
  const size_t image = niti_shape_image(niti_dataset_shape(kept));
  const uint8_t *images = niti_dataset_images(kept, split);
  uint8_t *one = malloc(image);
  FUZZ_CHECK(niti_dataset_count(left, split) == niti_dataset_count(kept, split));
  for (int64_t i = 0; one && images && i < niti_dataset_count(kept, split); ++i) {
    FUZZ_CHECK(niti_dataset_label(left, split, i) == niti_dataset_label(kept, split, i));
    FUZZ_CHECK(niti_dataset_read(left, split, i, true, 0, 0, one) == NITI_OK);
    FUZZ_CHECK(memcmp(one, images + (size_t)i * image, image) == 0);
  }
  free(one);
}

/* kept: what the same folder, options and request gave, NULL where they were refused. Both are refused, or hold the same. */
static inline void fuzz_lazy(NitiDataset *kept, const NitiDataOptions *options, const NitiDataRequest *request) {
  NitiDataRequest lazy = request ? *request : (NitiDataRequest){0};
  NitiDataset *left;
  char hashes[2][65];
  lazy.lazy = true;
  const NitiStatus status = fuzz_status(niti_dataset_open(&left, fuzz_dir(), options, &lazy));
  if (status == NITI_ERROR_MEMORY) return;
  FUZZ_CHECK((status == NITI_OK) == (kept != NULL));
  for (int split = 0; kept && split < NITI_SPLITS; ++split) {
    if (niti_dataset_count(kept, (NitiSplit)split) == 0) continue;
    fuzz_compare_images(kept, left, (NitiSplit)split);
    FUZZ_CHECK(niti_dataset_hash(kept, (NitiSplit)split, hashes[0]) == NITI_OK);
    FUZZ_CHECK(niti_dataset_hash(left, (NitiSplit)split, hashes[1]) == NITI_OK);
    FUZZ_CHECK(strcmp(hashes[0], hashes[1]) == 0);
    fuzz_compare_images(kept, left, (NitiSplit)split); /* which are checked by now */
  }
  niti_dataset_close(left);
}

#endif
