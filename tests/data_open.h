/* Data sets opened as training opens them, and a small image folder. Include data_files.h first. */
#ifndef NITI_TESTS_DATA_OPEN_H
#define NITI_TESTS_DATA_OPEN_H

#include "data/dataset.h"

static const NitiShape size8 = {.n = 1, .h = 8, .w = 8, .c = 1};

/* What training asks for. size NULL: the first image's. */
static inline NitiDataRequest request_of(const NitiShape *size) {
  const unsigned need = NITI_SPLIT_BIT(NITI_TRAIN) | NITI_SPLIT_BIT(NITI_TEST);
  const NitiDataRequest request = {.size = size ? *size : (NitiShape){0}, .need = need, .take = NITI_EVERY_SPLIT};
  return request;
}

static inline void expect_open(NitiStatus expected, const char *path, NitiDataKind kind, const NitiShape *size, const char *a,
                               const char *b) {
  NitiDataset *dataset = (NitiDataset *)(uintptr_t)1;
  const NitiDataOptions options = {.kind = kind};
  const NitiDataRequest request = request_of(size);
  const NitiStatus status = niti_dataset_open(&dataset, path, &options, &request);
  check_error((int)status, (int)expected, niti_error(), a, b);
  assert_null(dataset);
}

static inline NitiDataset *open_good(const char *path, NitiDataKind kind, const NitiShape *size) {
  NitiDataset *dataset = NULL;
  const NitiDataOptions options = {.kind = kind};
  const NitiDataRequest request = request_of(size);
  if (niti_dataset_open(&dataset, path, &options, &request) != NITI_OK) fail_msg("%s", niti_error());
  return dataset;
}

/* train: b has two images, a one; test: the same classes. Image i is flat grey 10 * i + 5. */
static inline char *put_folder(const char *test) {
  char *dir = make_temp();
  const char *names[] = {"train/a/z.png", "train/b/10.PNG", "train/b/9.png", "t/a/x.jpeg", "t/b/y.png"};
  uint8_t pixels[64];
  put_dir(path_of("%s/train", dir));
  put_dir(path_of("%s/%s", dir, test));
  for (int i = 0; i < 4; ++i) put_dir(path_of("%s/%s/%s", dir, i & 1 ? "train" : test, i & 2 ? "a" : "b"));
  for (int i = 0; i < 5; ++i) {
    const char *path = i < 3 ? path_of("%s/%s", dir, names[i]) : path_of("%s/%s%s", dir, test, names[i] + 1);
    memset(pixels, 10 * i + 5, sizeof pixels);
    if (i == 3)
      put_jpeg(path, 8, 8, 1, pixels);
    else
      put_png(path, 8, 8, 1, pixels);
  }
  put_file(path_of("%s/train/a/notes.txt", dir), "no image", 8);
  put_file(path_of("%s/train/README", dir), "no class", 8);
  put_dir(path_of("%s/train/.hidden", dir));
  return dir;
}

#endif
