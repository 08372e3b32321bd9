/* Images: what JPEG and PNG files of every kind become, which damage is reported or accepted, orientation, and scaling. */
/* clang-format off */
#include "data_files.h" /* first */
/* clang-format on */
#include "data/dataset.h"
#include "data/exif.h"
#include "guarded.h"

static const NitiShape size8 = {.n = 1, .h = 8, .w = 8, .c = 1};

/* ---- images ---- */

static void read_good(const char *path, const NitiDataOptions *options, int h, int w, int c, uint8_t *out) {
  const NitiShape size = {.n = 1, .h = h, .w = w, .c = c};
  if (niti_image_read(path, options, size, out) != NITI_OK) fail_msg("%s", niti_error());
}

static void expect_read(NitiStatus expected, const char *path, const NitiDataOptions *options, NitiShape size, const char *a,
                        const char *b) {
  uint8_t out[3 * 64];
  check_error((int)niti_image_read(path, options, size, out), (int)expected, niti_error(), a, b);
}

static void png_kinds_become_8_bits(void **state) {
  (void)state;
  char *dir = make_temp();
  const char *path = path_of("%s/x.png", dir);
  uint8_t out[64 * 3];
  for (int interlaced = 0; interlaced < 2; ++interlaced) {
    /* Two rows of four pixels, each kind. */
    put_png_kind(path, 2, 4, (PngKind){.type = PNG_COLOR_TYPE_GRAY, .depth = 1, .interlaced = interlaced},
                 (const uint8_t[]){0x50, 0xa0}, 1);
    read_good(path, NULL, 2, 4, 1, out);
    assert_memory_equal(out, ((const uint8_t[]){0, 255, 0, 255, 255, 0, 255, 0}), 8);
    put_png_kind(path, 2, 4, (PngKind){.type = PNG_COLOR_TYPE_GRAY, .depth = 2, .interlaced = interlaced},
                 (const uint8_t[]){0x1b, 0xe4}, 1);
    read_good(path, NULL, 2, 4, 1, out);
    assert_memory_equal(out, ((const uint8_t[]){0, 85, 170, 255, 255, 170, 85, 0}), 8);
    put_png_kind(path, 2, 4, (PngKind){.type = PNG_COLOR_TYPE_GRAY, .depth = 4, .interlaced = interlaced},
                 (const uint8_t[]){0x01, 0x2f, 0xfe, 0x34}, 2);
    read_good(path, NULL, 2, 4, 1, out);
    assert_memory_equal(out, ((const uint8_t[]){0, 17, 34, 255, 255, 238, 51, 68}), 8);
    /* 16 bits: nearest multiple of 257: 0x0080 / 257 = 0.498, 0x0081 / 257 = 0.502. */
    put_png_kind(path, 1, 4, (PngKind){.type = PNG_COLOR_TYPE_GRAY, .depth = 16, .interlaced = interlaced},
                 (const uint8_t[]){0, 0x80, 0, 0x81, 0x12, 0x12, 255, 255}, 8);
    read_good(path, NULL, 1, 4, 1, out);
    assert_memory_equal(out, ((const uint8_t[]){0, 1, 0x12, 255}), 4);
    const png_color palette[4] = {{1, 2, 3}, {40, 50, 60}, {255, 0, 7}, {9, 9, 9}};
    put_png_kind(path, 1, 4, (PngKind){.type = PNG_COLOR_TYPE_PALETTE, .depth = 2, .interlaced = interlaced, .palette = palette},
                 (const uint8_t[]){0x1b}, 1);
    read_good(path, NULL, 1, 4, 3, out);
    assert_memory_equal(out, ((const uint8_t[]){1, 2, 3, 40, 50, 60, 255, 0, 7, 9, 9, 9}), 12);
    put_png_kind(path, 1, 2, (PngKind){.type = PNG_COLOR_TYPE_RGB_ALPHA, .depth = 8, .interlaced = interlaced},
                 (const uint8_t[]){1, 2, 3, 0, 4, 5, 6, 255}, 8);
    read_good(path, NULL, 1, 2, 3, out);
    assert_memory_equal(out, ((const uint8_t[]){1, 2, 3, 4, 5, 6}), 6);
    put_png_kind(path, 1, 2, (PngKind){.type = PNG_COLOR_TYPE_GRAY_ALPHA, .depth = 8, .interlaced = interlaced},
                 (const uint8_t[]){7, 0, 8, 255}, 4);
    read_good(path, NULL, 1, 2, 3, out); /* grey is repeated */
    assert_memory_equal(out, ((const uint8_t[]){7, 7, 7, 8, 8, 8}), 6);
    put_png_kind(path, 1, 1, (PngKind){.type = PNG_COLOR_TYPE_RGB, .depth = 16, .interlaced = interlaced},
                 (const uint8_t[]){10, 10, 20, 20, 30, 30}, 6);
    read_good(path, NULL, 1, 1, 3, out);
    assert_memory_equal(out, ((const uint8_t[]){10, 20, 30}), 3);
  }
  /* Colour to grey: ITU-R BT.601 weights, 0.299 100 + 0.587 200 + 0.114 50 = 153.0; white stays white. */
  put_png(path, 1, 2, 3, (const uint8_t[]){100, 200, 50, 255, 255, 255});
  read_good(path, NULL, 1, 2, 1, out);
  assert_memory_equal(out, ((const uint8_t[]){153, 255}), 2);
  remove_temp(dir);
}

static void jpeg_is_decoded(void **state) {
  (void)state;
  char *dir = make_temp();
  const char *path = path_of("%s/x.JPG", dir);
  uint8_t pixels[16 * 16 * 4], out[16 * 16 * 3];
  memset(pixels, 77, sizeof pixels); /* a flat block has only its mean: exact at quality 100 */
  put_jpeg(path, 16, 16, 1, pixels);
  read_good(path, NULL, 16, 16, 1, out);
  for (int i = 0; i < 256; ++i) assert_int_equal(out[i], 77);
  read_good(path, NULL, 16, 16, 3, out);
  for (int i = 0; i < 768; ++i) assert_int_equal(out[i], 77);
  for (int i = 0; i < 256; ++i) memcpy(pixels + 3 * i, (const uint8_t[]){200, 100, 50}, 3);
  put_jpeg(path, 16, 16, 3, pixels);
  read_good(path, NULL, 16, 16, 3, out);
  for (int i = 0; i < 768; ++i) assert_true(abs(out[i] - pixels[i]) <= 2);
  /* Inverted CMYK as Adobe writes it: RGB = C K / 255. */
  for (int i = 0; i < 256; ++i) memcpy(pixels + 4 * i, (const uint8_t[]){255, 102, 0, 128}, 4);
  put_jpeg(path, 16, 16, 4, pixels);
  read_good(path, NULL, 16, 16, 3, out);
  assert_true(abs(out[0] - 128) <= 2 && abs(out[1] - 51) <= 2 && out[2] <= 2);
  remove_temp(dir);
}

static void image_damage_is_told(void **state) {
  (void)state;
  char *dir = make_temp();
  uint8_t pixels[64 * 3];
  size_t size = 0;
  for (int i = 0; i < 192; ++i) pixels[i] = (uint8_t)(i * 37 + i * i);
  for (int kind = 0; kind < 2; ++kind) {
    const char *path = path_of("%s/%s", dir, kind ? "x.png" : "x.jpg");
    const char *wrong = kind ? "not a sound PNG" : "not a sound JPEG";
    if (kind)
      put_png(path, 8, 8, 3, pixels);
    else
      put_jpeg(path, 8, 8, 3, pixels);
    uint8_t *bytes = get_file(path, &size);
    /* Cut anywhere. The last bytes of a JPEG are its end marker and a byte that may hold padding alone. */
    for (size_t keep = 8; keep < size - (kind ? 0 : 3); ++keep) {
      put_file(path, bytes, keep);
      expect_read(NITI_ERROR_FORMAT, path, NULL, size8, path, wrong);
    }
    put_file(path, bytes, 2);
    expect_read(NITI_ERROR_FORMAT, path, NULL, size8, path, "neither a JPEG nor a PNG");
    put_file(path, bytes, 0);
    expect_read(NITI_ERROR_FORMAT, path, NULL, size8, path, "it is empty");
    memset(bytes + size / 2, 0xff, 8);
    bytes[size / 2 + 1] = 0xd9; /* JPEG: the end, too early */
    put_file(path, bytes, size);
    expect_read(NITI_ERROR_FORMAT, path, NULL, size8, path, wrong);
    free(bytes);
  }
  const char *path = path_of("%s/x.png", dir);
  put_png(path, 8, 8, 1, pixels);
  uint8_t *bytes = get_file(path, &size);
  put_u32(bytes + 16, 100000); /* a wrong width, with the chunk's checksum set right */
  put_u32(bytes + 20, 100000);
  put_u32(bytes + 29, (uint32_t)crc32(0, bytes + 12, 17));
  put_file(path, bytes, size);
  expect_read(NITI_ERROR_FORMAT, path, NULL, size8, path, "100000x100000 pixels");
  free(bytes);
  expect_read(NITI_ERROR_FILE, path_of("%s/none.png", dir), NULL, size8, "none.png", "No such file");
  expect_read(NITI_ERROR_FILE, dir, NULL, size8, dir, "expected a regular file");
  put_png(path, 8, 8, 1, pixels);
  expect_read(NITI_ERROR_ARGUMENT, path, NULL, (NitiShape){1, 8, 8, 2}, "2 channels", "expected 1 (grey) or 3");
  expect_read(NITI_ERROR_ARGUMENT, path, NULL, (NitiShape){1, 0, 8, 1}, "0x8", "1 to 16384");
  expect_read(NITI_ERROR_ARGUMENT, path, &(NitiDataOptions){.resize = 5, .pad = 1}, size8, "resize 5 with padding 1", "8x8");
  remove_temp(dir);
}

/* ---- JPEG files that lack something ---- */

enum { PHOTO_H = 40, PHOTO_W = 24, PHOTO = PHOTO_H * PHOTO_W * 3 };

/* Ways to write the same photo. */
typedef struct JpegKind {
  bool progressive, arithmetic, separate; /* separate: a scan for each component */
  int restart;                            /* rows of blocks between restart markers; 0: none */
  int scans;                              /* that many, of a coefficient each, but for the first; 0: as usual */
} JpegKind;

static void put_jpeg_kind(const char *path, JpegKind kind) {
  static const jpeg_scan_info scans[3] = {{1, {0}, 0, 63, 0, 0}, {1, {1}, 0, 63, 0, 0}, {1, {2}, 0, 63, 0, 0}};
  jpeg_scan_info single[1 + 3 * 63] = {{3, {0, 1, 2}, 0, 0, 0, 0}};
  for (int i = 0; i < 3 * 63; ++i) single[1 + i] = (jpeg_scan_info){1, {i / 63}, i % 63 + 1, i % 63 + 1, 0, 0};
  struct jpeg_compress_struct info;
  struct jpeg_error_mgr errors;
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  jpeg_stdio_dest(&info, file);
  info.image_width = PHOTO_W;
  info.image_height = PHOTO_H;
  info.input_components = 3;
  info.in_color_space = JCS_RGB;
  jpeg_set_defaults(&info);
  if (kind.progressive) jpeg_simple_progression(&info);
  if (kind.separate) {
    info.scan_info = scans;
    info.num_scans = 3;
  }
  if (kind.scans) {
    info.scan_info = single;
    info.num_scans = kind.scans;
  }
  info.arith_code = kind.arithmetic;
  info.restart_in_rows = kind.restart;
  jpeg_start_compress(&info, TRUE);
  while (info.next_scanline < PHOTO_H) {
    uint8_t row[PHOTO_W * 3], *rows = row;
    for (int i = 0; i < PHOTO_W * 3; ++i)
      row[i] = (uint8_t)((i * 7 + (int)info.next_scanline * 5) ^ (i * (int)info.next_scanline));
    (void)jpeg_write_scanlines(&info, &rows, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  assert_int_equal(fclose(file), 0);
}

static const JpegKind jpeg_kinds[] = {{0},
                                      {.progressive = true},
                                      {.restart = 1},
                                      {.separate = true},
                                      {.arithmetic = true},
                                      {.progressive = true, .arithmetic = true},
                                      {.progressive = true, .restart = 2}};
enum { JPEG_KINDS = sizeof jpeg_kinds / sizeof *jpeg_kinds };

static NitiStatus decode(uint8_t pixels[PHOTO], const uint8_t *bytes, size_t size) {
  NitiImage image;
  const NitiStatus status = niti_image_decode(&image, bytes, size, "photo", 3);
  if (status == NITI_OK) {
    assert_true(image.h == PHOTO_H && image.w == PHOTO_W && image.c == 3);
    memcpy(pixels, image.pixels, PHOTO);
  }
  free(image.pixels);
  return status;
}

/* Wherever a file is cut: it is refused, or every pixel is there. */
static void cut_jpegs_are_whole_or_refused(void **state) {
  (void)state;
  static uint8_t whole[PHOTO], pixels[PHOTO];
  char *dir = make_temp();
  const char *path = path_of("%s/x.jpg", dir);
  for (int k = 0; k < JPEG_KINDS; ++k) {
    size_t size = 0;
    int accepted = 0;
    put_jpeg_kind(path, jpeg_kinds[k]);
    uint8_t *bytes = get_file(path, &size);
    assert_int_equal(decode(whole, bytes, size), NITI_OK);
    for (size_t keep = 0; keep < size; ++keep) {
      if (decode(pixels, bytes, keep) != NITI_OK) continue;
      assert_memory_equal(pixels, whole, PHOTO);
      ++accepted;
    }
    /* Without the end marker all pixels are there, except that with separate scans or arithmetic coding niti cannot be sure. */
    const bool known = !jpeg_kinds[k].separate && !jpeg_kinds[k].arithmetic;
    const NitiStatus status = decode(pixels, bytes, size - 2);
    if (known)
      assert_true(status == NITI_OK && accepted >= 2);
    else
      check_error((int)status, NITI_ERROR_FORMAT, niti_error(), "photo: not a sound JPEG", "before its last scan");
    free(bytes);
  }
  remove_temp(dir);
}

/* Each scan costs a pass over all coefficients, however few bytes it has. */
static void scans_are_limited(void **state) {
  (void)state;
  static uint8_t pixels[PHOTO];
  char *dir = make_temp();
  const char *path = path_of("%s/x.jpg", dir);
  for (int scans = 99; scans <= 190; scans += scans < 101 ? 1 : 89) {
    size_t size = 0;
    put_jpeg_kind(path, (JpegKind){.scans = scans});
    uint8_t *bytes = get_file(path, &size);
    const NitiStatus status = decode(pixels, bytes, size);
    if (scans <= 100)
      assert_int_equal(status, NITI_OK);
    else
      check_error((int)status, NITI_ERROR_FORMAT, niti_error(), "photo: not a sound JPEG", "more than 100 scans");
    free(bytes);
  }
  remove_temp(dir);
}

/* Bytes of `extra` put into a copy at `at`; the caller frees it. */
static uint8_t *insert(const uint8_t *bytes, size_t size, size_t at, const void *extra, size_t count) {
  uint8_t *longer = malloc(size + count);
  assert_non_null(longer);
  memcpy(longer, bytes, at);
  memcpy(longer + at, extra, count);
  memcpy(longer + at + count, bytes + at, size - at);
  return longer;
}

/* Where the marker ff `code` first occurs. */
static size_t find_marker(const uint8_t *bytes, size_t size, uint8_t code) {
  for (size_t i = 0; i + 1 < size; ++i) {
    if (bytes[i] == 0xff && bytes[i + 1] == code) return i;
  }
  fail_msg("no marker %02x", code);
  return 0;
}

static void harmless_oddities_of_jpegs_are_accepted(void **state) {
  (void)state;
  static uint8_t whole[PHOTO], pixels[PHOTO];
  static const uint8_t garbage[20] = {0x12, 0x34, 0x12, 0x34, 0x12, 0x34, 0x12, 0x34};
  char *dir = make_temp();
  const char *path = path_of("%s/x.jpg", dir);
  size_t size = 0;
  put_jpeg_kind(path, jpeg_kinds[0]);
  uint8_t *bytes = get_file(path, &size);
  assert_int_equal(decode(whole, bytes, size), NITI_OK);
  assert_memory_equal(bytes + 6, "JFIF", 5);
  bytes[11] = bytes[12] = 0; /* revision 0.00, as of old digital cameras */
  assert_int_equal(decode(pixels, bytes, size), NITI_OK);
  assert_memory_equal(pixels, whole, PHOTO);
  uint8_t *longer = insert(bytes, size, size - 2, garbage, sizeof garbage); /* between the scan and the end */
  assert_int_equal(decode(pixels, longer, size + sizeof garbage), NITI_OK);
  assert_memory_equal(pixels, whole, PHOTO);
  free(longer);
  longer = insert(bytes, size, size, garbage, sizeof garbage); /* after the end */
  assert_int_equal(decode(pixels, longer, size + sizeof garbage), NITI_OK);
  free(longer);
  free(bytes);
  /* Bytes are left over before a restart marker: the scan was misread or has been changed. */
  put_jpeg_kind(path, (JpegKind){.restart = 1});
  bytes = get_file(path, &size);
  longer = insert(bytes, size, find_marker(bytes, size, 0xd0), garbage, sizeof garbage);
  check_error((int)decode(pixels, longer, size + sizeof garbage), NITI_ERROR_FORMAT, niti_error(), "photo: not a sound JPEG",
              "extraneous bytes");
  free(longer);
  const size_t second = find_marker(bytes, size, 0xd1);
  memmove(bytes + second, bytes + second + 2, size - second - 2); /* a restart marker is lost */
  check_error((int)decode(pixels, bytes, size - 2), NITI_ERROR_FORMAT, niti_error(), "photo: not a sound JPEG", "");
  free(bytes);
  remove_temp(dir);
}

/* ---- orientation ---- */

/* A TIFF structure whose first directory holds two entries, the second one the orientation. Returns its size. */
enum { TIFF_SIZE = 38 };
static void put_number(uint8_t *to, bool big, int count, uint32_t v) {
  for (int i = 0; i < count; ++i) to[big ? count - 1 - i : i] = (uint8_t)(v >> (8 * i));
}

static void make_tiff(uint8_t tiff[TIFF_SIZE], bool big, uint32_t orientation) {
  const uint32_t entries[2][3] = {{0x10f, 2, 4}, {0x112, 3, 1}}; /* tag, type, count */
  memset(tiff, 0, TIFF_SIZE);
  memcpy(tiff, big ? "MM" : "II", 2);
  put_number(tiff + 2, big, 2, 42);
  put_number(tiff + 4, big, 4, 8);
  put_number(tiff + 8, big, 2, 2);
  for (int i = 0; i < 2; ++i) {
    uint8_t *entry = tiff + 10 + 12 * i;
    put_number(entry, big, 2, entries[i][0]);
    put_number(entry + 2, big, 2, entries[i][1]);
    put_number(entry + 4, big, 4, entries[i][2]);
    if (i == 1) put_number(entry + 8, big, 2, orientation);
  }
}

/* EXIF's definition: the sides on which the 0th row and the 0th column are seen. */
static const char seen_sides[9][3] = {"", "TL", "TR", "BR", "BL", "LT", "RT", "RB", "LB"};

/* Where line `index` of `count`, counted from `side`, is seen: adds to y or x. */
static void place(int *y, int *x, char side, int index, int count) {
  if (side == 'T') *y = index;
  if (side == 'B') *y = count - 1 - index;
  if (side == 'L') *x = index;
  if (side == 'R') *x = count - 1 - index;
}

enum { TURN_H = 35, TURN_W = 67 };

static uint8_t turn_pixel(int row, int column, int c) { return (uint8_t)(row * 7 + column * 3 + c * 80); }

static void check_turned(const NitiImage *image, int orientation, int h, int w) {
  const bool swapped = orientation >= 5;
  assert_true(image->h == (swapped ? w : h) && image->w == (swapped ? h : w));
  for (int row = 0; row < h; ++row) {
    for (int column = 0; column < w; ++column) {
      int y = 0, x = 0;
      place(&y, &x, seen_sides[orientation][0], row, h);
      place(&y, &x, seen_sides[orientation][1], column, w);
      for (int c = 0; c < image->c; ++c)
        assert_int_equal(image->pixels[(y * image->w + x) * image->c + c], turn_pixel(row, column, c));
    }
  }
}

static void images_are_turned_as_they_are_seen(void **state) {
  (void)state;
  for (int orientation = 1; orientation <= 8; ++orientation) {
    for (int c = 1; c <= 3; c += 2) {
      NitiImage image = {.h = TURN_H, .w = TURN_W, .c = c, .pixels = malloc(TURN_H * TURN_W * 3)};
      for (int i = 0; i < TURN_H * TURN_W * c; ++i) image.pixels[i] = turn_pixel(i / c / TURN_W, i / c % TURN_W, i % c);
      assert_int_equal(niti_image_turn(&image, orientation, "x"), NITI_OK);
      check_turned(&image, orientation, TURN_H, TURN_W);
      free(image.pixels);
    }
  }
}

/* A grey JPEG, 16 high and 8 wide, its upper half white, with the TIFF structure in APP1. */
static uint8_t *jpeg_with_exif(const char *path, size_t *size, const uint8_t *tiff, size_t tiff_size) {
  uint8_t pixels[128] = {0}, segment[10 + TIFF_SIZE] = {0xff, 0xe1, 0, 0, 'E', 'x', 'i', 'f', 0, 0};
  memset(pixels, 255, 64);
  put_jpeg(path, 16, 8, 1, pixels);
  uint8_t *bytes = get_file(path, size);
  segment[3] = (uint8_t)(8 + tiff_size);
  memcpy(segment + 10, tiff, tiff_size);
  uint8_t *longer = insert(bytes, *size, 2, segment, 10 + tiff_size);
  *size += 10 + tiff_size;
  free(bytes);
  return longer;
}

/* On which side the image is white. */
static char white_side(const uint8_t *bytes, size_t size) {
  NitiImage image;
  if (niti_image_decode(&image, bytes, size, "photo", 1) != NITI_OK) fail_msg("%s", niti_error());
  const size_t last = (size_t)(image.h * image.w) - 1;
  const bool first = image.pixels[0] == 255, along = image.pixels[image.w - 1] == 255;
  assert_true((image.pixels[last] == 255) != first);
  free(image.pixels);
  return first && along ? 'T' : first ? 'L' : along ? 'R' : 'B';
}

static void orientation_of_jpeg_and_png_is_applied(void **state) {
  (void)state;
  char *dir = make_temp();
  const char *path = path_of("%s/x.png", dir);
  uint8_t tiff[TIFF_SIZE], pixels[128] = {0};
  memset(pixels, 255, 64);
  for (int i = 0; i < 2 * 9; ++i) {
    const int noted = i / 2, orientation = noted ? noted : 1; /* 0 is none */
    size_t size = 0;
    make_tiff(tiff, i & 1, (uint32_t)noted);
    uint8_t *bytes = jpeg_with_exif(path, &size, tiff, sizeof tiff);
    assert_int_equal(white_side(bytes, size), seen_sides[orientation][0]);
    free(bytes);
    put_png_kind(path, 16, 8, (PngKind){.type = PNG_COLOR_TYPE_GRAY, .depth = 8, .exif = tiff, .exif_size = sizeof tiff}, pixels,
                 8);
    bytes = get_file(path, &size);
    assert_int_equal(white_side(bytes, size), seen_sides[orientation][0]);
    free(bytes);
  }
  remove_temp(dir);
}

/* Anything may stand in EXIF: it never fails an image, and nothing beyond it is looked at (the sanitizers see that). */
static void malformed_exif_is_no_orientation(void **state) {
  (void)state;
  uint8_t tiff[TIFF_SIZE];
  make_tiff(tiff, true, 6);
  assert_int_equal(niti_exif_orientation(tiff, sizeof tiff), 6);
  for (size_t size = 0; size < 32; ++size) { /* cut before the value */
    uint8_t *part = malloc(size + 1);
    memcpy(part, tiff, size);
    assert_int_equal(niti_exif_orientation(part, size), 1);
    free(part);
  }
  const struct {
    size_t at;
    uint8_t value;
  } wrong[] = {{0, 'I'}, {3, 43}, {4, 0xff}, {7, 9}, {9, 1}, {25, 4}, {29, 2}, {31, 9}, {30, 1}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; ++i) {
    make_tiff(tiff, true, 6);
    tiff[wrong[i].at] = wrong[i].value;
    assert_int_equal(niti_exif_orientation(tiff, sizeof tiff), 1);
  }
  make_tiff(tiff, true, 6);
  tiff[0] = tiff[1] = 'X'; /* no byte order */
  assert_int_equal(niti_exif_orientation(tiff, sizeof tiff), 1);
  for (int round = 0; round < 20000; ++round) {
    uint8_t *copy = malloc(TIFF_SIZE); /* exactly so long, for the sanitizers */
    make_tiff(copy, round & 1, (uint32_t)random_in(0, 9));
    for (int i = random_in(1, 4); i > 0; --i) copy[random_in(0, TIFF_SIZE - 1)] = (uint8_t)next_random();
    assert_in_range(niti_exif_orientation(copy, TIFF_SIZE), 1, 8);
    free(copy);
  }
  char *dir = make_temp();
  size_t size = 0;
  uint8_t *bytes = jpeg_with_exif(path_of("%s/x.jpg", dir), &size, (const uint8_t *)"MM", 2);
  assert_int_equal(white_side(bytes, size), 'T');
  free(bytes);
  remove_temp(dir);
}

/* Most of this file is empty APP1 segments: work that grows with the square of their number would not end today. The first
 * EXIF after them counts, and no later one. */
static void any_number_of_segments_is_read(void **state) {
  (void)state;
  enum { SEGMENTS = 1 << 20 };
  char *dir = make_temp();
  uint8_t first[TIFF_SIZE], second[TIFF_SIZE], *segments = malloc(4 * SEGMENTS);
  size_t size = 0, other_size = 0;
  make_tiff(first, true, 6);
  make_tiff(second, true, 3);
  uint8_t *bytes = jpeg_with_exif(path_of("%s/x.jpg", dir), &size, first, sizeof first);
  uint8_t *other = jpeg_with_exif(path_of("%s/x.jpg", dir), &other_size, second, sizeof second);
  for (size_t i = 0; i < SEGMENTS; ++i) memcpy(segments + 4 * i, (const uint8_t[]){0xff, 0xe1, 0, 2}, 4);
  uint8_t *both = insert(bytes, size, 12 + TIFF_SIZE, other + 2, 10 + TIFF_SIZE);
  uint8_t *many = insert(both, size + 10 + TIFF_SIZE, 2, segments, 4 * SEGMENTS);
  assert_int_equal(white_side(many, size + 10 + TIFF_SIZE + 4 * SEGMENTS), seen_sides[6][0]);
  free(many);
  free(both);
  free(other);
  free(bytes);
  free(segments);
  remove_temp(dir);
}

/* ---- scaling ---- */

/* Area average by the definition: every source pixel cut into D x D parts, S x S of them averaged. */
static int area_average(const uint8_t *in, int h, int w, int H, int W, int y, int x) {
  int64_t sum = 0;
  for (int a = 0; a < h; ++a) {
    for (int b = 0; b < w; ++b) sum += in[(y * h + a) / H * w + (x * w + b) / W];
  }
  return (int)((2 * sum + h * w) / (2 * h * w));
}

static void shrinking_averages_areas(void **state) {
  (void)state;
  static const int sizes[][4] = {{8, 8, 4, 4}, {7, 5, 3, 2}, {16, 9, 16, 4}, {13, 11, 1, 1}, {12, 10, 5, 10}, {3, 4, 3, 4}};
  char *dir = make_temp();
  const char *path = path_of("%s/x.png", dir);
  uint8_t in[256], out[256];
  for (int i = 0; i < 256; ++i) in[i] = (uint8_t)(i * i * 3 + i * 91);
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes; ++s) {
    const int h = sizes[s][0], w = sizes[s][1], H = sizes[s][2], W = sizes[s][3];
    put_png(path, (uint32_t)h, (uint32_t)w, 1, in);
    read_good(path, &(NitiDataOptions){.fit = NITI_FIT_STRETCH}, H, W, 1, out);
    for (int i = 0; i < H * W; ++i) assert_int_equal(out[i], area_average(in, h, w, H, W, i / W, i % W));
  }
  remove_temp(dir);
}

static void enlarging_is_bilinear(void **state) {
  (void)state;
  char *dir = make_temp();
  const char *path = path_of("%s/x.png", dir);
  uint8_t out[64];
  /* 2 -> 4: centres lie at -1/4, 1/4, 3/4, 5/4 of the source: a, (3 a + b) / 4, (a + 3 b) / 4, b. */
  put_png(path, 1, 2, 1, (const uint8_t[]){10, 30});
  read_good(path, &(NitiDataOptions){.fit = NITI_FIT_STRETCH}, 1, 4, 1, out);
  assert_memory_equal(out, ((const uint8_t[]){10, 15, 25, 30}), 4);
  read_good(path, &(NitiDataOptions){.fit = NITI_FIT_STRETCH}, 3, 4, 1, out);
  for (int y = 0; y < 3; ++y) assert_memory_equal(out + 4 * y, ((const uint8_t[]){10, 15, 25, 30}), 4);
  put_png(path, 2, 2, 1, (const uint8_t[]){0, 100, 200, 44});
  read_good(path, &(NitiDataOptions){.fit = NITI_FIT_STRETCH}, 4, 4, 1, out);
  /* (1, 1): 9/16 0 + 3/16 100 + 3/16 200 + 1/16 44 = 59; (2, 1): 3/16 0 + 1/16 100 + 9/16 200 + 3/16 44 = 127. */
  assert_int_equal(out[5], 59);
  assert_int_equal(out[9], 127);
  assert_int_equal(out[0], 0);
  assert_int_equal(out[15], 44);
  /* 2 -> 3: 1/6 -> -1/6, 1/2, 7/6: a, (a + b) / 2, b; ties go up: (0 + 101) / 2 = 50.5. Colours keep apart. */
  put_png(path, 1, 2, 3, (const uint8_t[]){0, 10, 20, 101, 20, 20});
  read_good(path, &(NitiDataOptions){.fit = NITI_FIT_STRETCH}, 1, 3, 3, out);
  assert_memory_equal(out, ((const uint8_t[]){0, 10, 20, 51, 15, 20, 101, 20, 20}), 9);
  remove_temp(dir);
}

static void crop_covers_and_centres(void **state) {
  (void)state;
  char *dir = make_temp();
  const char *path = path_of("%s/x.png", dir);
  uint8_t in[64 * 64], out[64];
  for (int i = 0; i < 4096; ++i) in[i] = (uint8_t)(i * 5 + i / 64 * 3);
  put_png(path, 8, 12, 1, in); /* 8 high, 12 wide; the window 8x8 starts at column (12 - 8) / 2 */
  read_good(path, NULL, 8, 8, 1, out);
  for (int y = 0; y < 8; ++y) assert_memory_equal(out + 8 * y, in + 12 * y + 2, 8);
  put_png(path, 13, 8, 1, in); /* row (13 - 8) / 2 = 2 */
  read_good(path, NULL, 8, 8, 1, out);
  assert_memory_equal(out, in + 16, 64);
  read_good(path, &(NitiDataOptions){.resize = 8}, 5, 7, 1, out); /* no scaling; rows from 4, columns from 0 */
  for (int y = 0; y < 5; ++y) assert_memory_equal(out + 7 * y, in + 8 * (y + 4), 7);
  put_png(path, 4, 4, 1, in); /* smaller than the window, but not with padding: zeros round it */
  read_good(path, &(NitiDataOptions){.resize = 4, .pad = 2}, 7, 7, 1, out);
  for (int y = 0; y < 7; ++y) { /* the span is 1: the window starts at 0, the image lies at 2 */
    for (int x = 0; x < 7; ++x) {
      const bool inside = y >= 2 && y < 6 && x >= 2 && x < 6;
      assert_int_equal(out[7 * y + x], inside ? in[4 * (y - 2) + x - 2] : 0);
    }
  }
  put_png(path, 20, 10, 1, in); /* the short side becomes 4, the long 8: 2.5 to 1; rows from 2 */
  read_good(path, &(NitiDataOptions){.resize = 4}, 4, 4, 1, out);
  for (int i = 0; i < 16; ++i) assert_int_equal(out[i], area_average(in, 20, 10, 8, 4, i / 4 + 2, i % 4));
  remove_temp(dir);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(png_kinds_become_8_bits),
      cmocka_unit_test(jpeg_is_decoded),
      cmocka_unit_test(image_damage_is_told),
      cmocka_unit_test(cut_jpegs_are_whole_or_refused),
      cmocka_unit_test(scans_are_limited),
      cmocka_unit_test(harmless_oddities_of_jpegs_are_accepted),
      cmocka_unit_test(images_are_turned_as_they_are_seen),
      cmocka_unit_test(orientation_of_jpeg_and_png_is_applied),
      cmocka_unit_test(malformed_exif_is_no_orientation),
      cmocka_unit_test(any_number_of_segments_is_read),
      cmocka_unit_test(shrinking_averages_areas),
      cmocka_unit_test(enlarging_is_bilinear),
      cmocka_unit_test(crop_covers_and_centres),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
