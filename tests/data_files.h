/* Small data sets in a temporary folder, for tests. Must be included first. */
#ifndef NITI_TESTS_DATA_FILES_H
#define NITI_TESTS_DATA_FILES_H

/* clang-format off */
#define _GNU_SOURCE /* nftw */
#include <ftw.h>
#include <png.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <jpeglib.h>
#include <cmocka.h> /* after setjmp.h, stdarg.h, stddef.h */
/* clang-format on */

/* DIR/NAME in one of 32 buffers used in turn. */
__attribute__((format(printf, 1, 2))) static inline const char *path_of(const char *format, ...) {
  static char buffers[32][512];
  static unsigned next;
  char *path = buffers[next++ % 32];
  va_list args;
  va_start(args, format);
  (void)vsnprintf(path, sizeof buffers[0], format, args);
  va_end(args);
  return path;
}

static inline char *make_temp(void) {
  const char *parent = getenv("TMPDIR");
  char *path = strdup(path_of("%s/niti-test-XXXXXX", parent && *parent ? parent : "/tmp"));
  assert_non_null(path);
  assert_non_null(mkdtemp(path));
  return path;
}

static inline int remove_entry(const char *path, const struct stat *facts, int type, struct FTW *walk) {
  (void)facts;
  (void)type;
  (void)walk;
  return remove(path);
}

static inline void remove_temp(char *path) {
  assert_int_equal(nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
  free(path);
}

static inline void put_dir(const char *path) { assert_int_equal(mkdir(path, 0777), 0); }

static inline void put_file(const char *path, const void *bytes, size_t size) {
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(bytes, 1, size, file), size);
  assert_int_equal(fclose(file), 0);
}

static inline void put_gzip(const char *path, const void *bytes, size_t size) {
  gzFile file = gzopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(gzwrite(file, bytes, (unsigned)size), (int)size);
  assert_int_equal(gzclose(file), Z_OK);
}

/* The whole file; the caller frees it. */
static inline uint8_t *get_file(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  assert_non_null(file);
  uint8_t *bytes = malloc(1 << 20);
  assert_non_null(bytes);
  *size = fread(bytes, 1, 1 << 20, file);
  fclose(file);
  return bytes;
}

static inline void put_u32(uint8_t *to, uint32_t v) {
  for (int i = 0; i < 4; ++i) to[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* Bytes of an IDX file with ndim (1 or 3) dimensions; the data are value(i). The caller frees it. */
static inline uint8_t *idx_bytes(size_t *size, uint32_t ndim, const uint32_t *dims, uint8_t (*value)(size_t)) {
  size_t count = 1;
  for (uint32_t i = 0; i < ndim; ++i) count *= dims[i];
  const size_t header = 4 + 4 * (size_t)ndim;
  uint8_t *bytes = malloc(header + count);
  assert_non_null(bytes);
  put_u32(bytes, 0x800 | ndim);
  for (uint32_t i = 0; i < ndim; ++i) put_u32(bytes + 4 + 4 * i, dims[i]);
  for (size_t i = 0; i < count; ++i) bytes[header + i] = value(i);
  *size = header + count;
  return bytes;
}

static inline void put_idx(const char *path, uint32_t ndim, const uint32_t *dims, uint8_t (*value)(size_t), bool gzip) {
  size_t size = 0;
  uint8_t *bytes = idx_bytes(&size, ndim, dims, value);
  if (gzip)
    put_gzip(path, bytes, size);
  else
    put_file(path, bytes, size);
  free(bytes);
}

/* MNIST's four files in a new folder: `train` and `test` images of side x side, pixel and label by their index. */
static inline char *put_idx_folder(uint32_t train, uint32_t test, uint32_t side, uint8_t (*pixel)(size_t),
                                   uint8_t (*label)(size_t)) {
  const uint32_t train_dims[3] = {train, side, side}, test_dims[3] = {test, side, side};
  char *dir = make_temp();
  put_idx(path_of("%s/train-images-idx3-ubyte", dir), 3, train_dims, pixel, false);
  put_idx(path_of("%s/train-labels-idx1-ubyte", dir), 1, train_dims, label, false);
  put_idx(path_of("%s/t10k-images-idx3-ubyte", dir), 3, test_dims, pixel, false);
  put_idx(path_of("%s/t10k-labels-idx1-ubyte", dir), 1, test_dims, label, false);
  return dir;
}

typedef struct PngKind {
  int type, depth;
  bool interlaced;
  const png_color *palette; /* of 4 colours */
  uint8_t *exif;            /* [exif_size] an eXIf chunk before the pixels; NULL: none */
  size_t exif_size;
} PngKind;

/* rows: h rows as PNG stores them, `stride` bytes each. */
static inline void put_png_kind(const char *path, uint32_t h, uint32_t w, PngKind kind, const uint8_t *rows, size_t stride) {
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
  png_infop info = png_create_info_struct(png);
  assert_non_null(info);
  if (setjmp(png_jmpbuf(png))) fail();
  png_init_io(png, file);
  png_set_IHDR(png, info, w, h, kind.depth, kind.type, kind.interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  if (kind.palette) png_set_PLTE(png, info, kind.palette, 4);
  if (kind.exif) png_set_eXIf_1(png, info, (png_uint_32)kind.exif_size, kind.exif);
  png_write_info(png, info);
  const int passes = png_set_interlace_handling(png);
  for (int pass = 0; pass < passes; ++pass) {
    for (uint32_t y = 0; y < h; ++y) png_write_row(png, rows + y * stride);
  }
  png_write_end(png, info);
  png_destroy_write_struct(&png, &info);
  assert_int_equal(fclose(file), 0);
}

/* c 1: grey; c 3: RGB; 8 bits. */
static inline void put_png(const char *path, uint32_t h, uint32_t w, uint32_t c, const uint8_t *pixels) {
  const PngKind kind = {.type = c == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB, .depth = 8};
  put_png_kind(path, h, w, kind, pixels, (size_t)w * c);
}

/* c 1: grey, 3: RGB, 4: CMYK; the best quality. */
static inline void put_jpeg(const char *path, int h, int w, int c, const uint8_t *pixels) {
  struct jpeg_compress_struct info;
  struct jpeg_error_mgr errors;
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  jpeg_stdio_dest(&info, file);
  info.image_width = (JDIMENSION)w;
  info.image_height = (JDIMENSION)h;
  info.input_components = c;
  info.in_color_space = c == 1 ? JCS_GRAYSCALE : c == 3 ? JCS_RGB : JCS_CMYK;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, 100, TRUE);
  jpeg_start_compress(&info, TRUE);
  while (info.next_scanline < info.image_height) {
    uint8_t *row = (uint8_t *)(uintptr_t)pixels + (size_t)info.next_scanline * (size_t)(w * c);
    (void)jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  assert_int_equal(fclose(file), 0);
}

/* The last error is `status` and its one line holds both texts. */
static inline void check_error(int status, int expected, const char *message, const char *a, const char *b) {
  if (status != expected || !strstr(message, a) || !strstr(message, b) || strchr(message, '\n'))
    fail_msg("status %d, expected %d; message '%s', expected '%s' and '%s' in one line", status, expected, message, a, b);
}

#endif
