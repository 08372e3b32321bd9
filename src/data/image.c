/* Decodes JPEG and PNG files with Debian's libraries, as image.h promises. */
#include "data/image.h"

#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
/* clang-format off */
#include <jpeglib.h> /* after stdio.h */
#include <jerror.h>  /* after jpeglib.h */
/* clang-format on */

#include "data/exif.h"
#include "data/format.h"
#include "platform/file.h"

enum {
  PIXELS_MAX = 1 << 26,
  JPEG_EXIF = JPEG_APP0 + 1,
  DEFLATE_RATIO_MAX = 1040, /* bytes that one packed byte can stand for */
  JPEG_PIXELS_MAX = 1024,   /* pixels that one byte can stand for: a bit per block of 8x8 pixels, twice over */
  JPEG_PIXELS_FREE = 1 << 20,
  JPEG_SCANS_MAX = 100, /* encoders write up to about 20; each goes over all coefficients, whatever it adds */
  JPEG_PIXEL_BYTES = 8, /* of coefficients: 2 bytes for each of at most four components */
  JPEG_PADDING = 32,    /* pixels by which blocks may exceed a side */
  JPEG_BYTES_FREE = 8 << 20,
};

/* What a decoder works on. setjmp lives in a function that only gets a pointer to it, so no local variable is lost. */
typedef struct Source {
  const char *path;
  const uint8_t *bytes;
  size_t size, position;
  NitiImage *image;
  int orientation;   /* 1 to 8 */
  bool noted;        /* JPEG: the orientation, or that none will be read any more */
  bool ended;        /* JPEG: the bytes ended before the end marker */
  bool header_only;  /* stop before the pixels, which stay NULL */
  uint8_t *line;     /* CMYK: one line; freed by the caller */
  uint8_t **lines;   /* PNG: pointers to lines; freed by the caller */
  NitiStatus status; /* not NITI_OK: already reported through niti_fail */
  jmp_buf escape;
  char text[JMSG_LENGTH_MAX > 200 ? JMSG_LENGTH_MAX : 200]; /* the decoder's complaint */
} Source;

/* Reserves the pixels; false with source->status set where that fails. possible: whether the file is large enough to hold them:
 * no header may make us ask for more memory than the file can fill. */
static bool reserve_pixels(Source *source, uint64_t h, uint64_t w, int32_t c, bool possible) {
  NitiImage *image = source->image;
  if (h < 1 || w < 1 || h > PIXELS_MAX || w > PIXELS_MAX || h * w > PIXELS_MAX) {
    source->status = niti_fail(NITI_ERROR_FORMAT, "%s: %llux%llu pixels (height x width), expected 1 to %d pixels", source->path,
                               (unsigned long long)h, (unsigned long long)w, PIXELS_MAX);
    return false;
  }
  if (!possible) {
    source->status =
        niti_fail(NITI_ERROR_FORMAT, "%s: the header promises %llux%llu pixels, more than a file of %zu bytes can hold",
                  source->path, (unsigned long long)h, (unsigned long long)w, source->size);
    return false;
  }
  image->h = (int32_t)h;
  image->w = (int32_t)w;
  image->c = c;
  if (source->header_only) return true;
  image->pixels = malloc((size_t)(h * w) * (size_t)c);
  if (!image->pixels)
    source->status = niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for %llux%llu pixels", source->path, (unsigned long long)h,
                               (unsigned long long)w);
  return image->pixels != NULL;
}

/* Whether a decoder gave up for want of memory, as both say in words: that is not the file's fault. */
static bool lacks_memory(const Source *source) { return strstr(source->text, "memory") != NULL; }

/* ---- JPEG ---- */

static void jpeg_escape(j_common_ptr info) {
  Source *source = info->client_data;
  info->err->format_message(info, source->text);
  longjmp(source->escape, 1);
}

/* Whether every pixel is as its author left it after this warning. JWRN_HIT_MARKER reports a file that ends too early, or
 * JWRN_MUST_RESYNC where the scan at hand lacks bits, and by has_every_scan; bytes left over before a restart marker mean that
 * the decoder lost its way in them. */
static bool leaves_pixels_intact(const struct jpeg_error_mgr *errors) {
  switch (errors->msg_code) {
    case JWRN_JFIF_MAJOR:
    case JWRN_ADOBE_XFORM:
    case JWRN_BOGUS_ICC:
    case JWRN_NOT_SEQUENTIAL:
    case JWRN_JPEG_EOF: return true;
    case JWRN_EXTRANEOUS_DATA: return errors->msg_parm.i[1] < JPEG_RST0 || errors->msg_parm.i[1] > JPEG_RST0 + 7;
    default: return false;
  }
}

/* Warnings have level -1; what is above is tracing. */
static void jpeg_message(j_common_ptr info, int level) {
  Source *source = info->client_data;
  if (level >= 0) return;
  if (!leaves_pixels_intact(info->err)) jpeg_escape(info);
  if (info->err->msg_code == JWRN_JPEG_EOF) source->ended = true;
}

/* Of a file without its end marker, before it is finished: whether no scan can be missing. An arithmetic decoder takes zeros for
 * bits that are not there. */
static bool has_every_scan(j_decompress_ptr info) {
  if (info->arith_code) return false;
  if (!info->coef_bits) return !jpeg_has_multiple_scans(info);
  for (int c = 0; c < info->num_components; ++c) {
    for (int k = 0; k < DCTSIZE2; ++k) {
      if (info->coef_bits[c][k] != 0) return false; /* bits still to come; -1: all of them */
    }
  }
  return true;
}

static uint32_t next_byte(j_decompress_ptr info) {
  if (!info->src->bytes_in_buffer) (void)info->src->fill_input_buffer(info);
  --info->src->bytes_in_buffer;
  return *info->src->next_input_byte++;
}

/* Takes an APP1 segment, and the orientation from the first one that is EXIF's. The decoder itself would save each segment at the
 * end of a list that it walks from the beginning: a file of nothing else would take minutes. */
static boolean take_exif(j_decompress_ptr info) {
  static const uint8_t name[6] = "Exif\0";
  Source *source = info->client_data;
  const uint32_t high = next_byte(info), length = high << 8 | next_byte(info);
  const size_t size = length > 2 ? length - 2 : 0, left = info->src->bytes_in_buffer;
  const uint8_t *bytes = info->src->next_input_byte;
  if (!source->noted && size <= left && size > sizeof name && memcmp(bytes, name, sizeof name) == 0) {
    source->orientation = niti_exif_orientation(bytes + sizeof name, size - sizeof name);
    source->noted = true;
  }
  if (size) info->src->skip_input_data(info, (long)size);
  return TRUE;
}

/* The decoder calls this again and again while it collects scans. */
static void limit_scans(j_common_ptr info) {
  Source *source = info->client_data;
  if (((j_decompress_ptr)info)->input_scan_number <= JPEG_SCANS_MAX) return;
  (void)snprintf(source->text, sizeof source->text, "more than %d scans", (int)JPEG_SCANS_MAX);
  longjmp(source->escape, 1);
}

/* Coefficients of several scans may take as much memory as these pixels need, and no more. */
static long coefficient_bytes(uint64_t h, uint64_t w) {
  return (long)((h + JPEG_PADDING) * (w + JPEG_PADDING) * JPEG_PIXEL_BYTES + JPEG_BYTES_FREE);
}

/* Adobe's files store inks inverted (255: none). */
static void cmyk_to_rgb(uint8_t *out, const uint8_t *in, int32_t count, bool inverted) {
  for (int32_t x = 0; x < count; ++x, in += 4) {
    const uint32_t k = inverted ? in[3] : 255u - in[3];
    for (int i = 0; i < 3; ++i) *out++ = (uint8_t)(((inverted ? in[i] : 255u - in[i]) * k + 127) / 255);
  }
}

static bool run_jpeg(Source *source, struct jpeg_decompress_struct *info, struct jpeg_progress_mgr *progress) {
  if (setjmp(source->escape)) return false;
  jpeg_create_decompress(info);
  info->progress = progress;
  jpeg_mem_src(info, source->bytes, source->size);
  jpeg_set_marker_processor(info, JPEG_EXIF, take_exif);
  (void)jpeg_read_header(info, TRUE);
  source->noted = true;
  const bool grey = info->jpeg_color_space == JCS_GRAYSCALE;
  const bool cmyk = info->jpeg_color_space == JCS_CMYK || info->jpeg_color_space == JCS_YCCK;
  info->out_color_space = grey ? JCS_GRAYSCALE : cmyk ? JCS_CMYK : JCS_RGB;
  info->dct_method = JDCT_ISLOW; /* the same bits with and without SIMD */
  info->do_fancy_upsampling = TRUE;
  info->do_block_smoothing = FALSE;
  const uint64_t h = info->image_height, w = info->image_width;
  const bool possible = h * w <= (uint64_t)source->size * JPEG_PIXELS_MAX + JPEG_PIXELS_FREE;
  if (!reserve_pixels(source, h, w, grey ? 1 : 3, possible)) return false;
  if (source->header_only) return true;
  NitiImage *image = source->image;
  const size_t stride = (size_t)image->w * (size_t)image->c;
  if (cmyk && !(source->line = malloc((size_t)image->w * 4))) {
    source->status = niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for a line of pixels", source->path);
    return false;
  }
  info->mem->max_memory_to_use = coefficient_bytes(h, w);
  (void)jpeg_start_decompress(info);
  while (info->output_scanline < info->output_height) {
    uint8_t *row = image->pixels + info->output_scanline * stride;
    (void)jpeg_read_scanlines(info, cmyk ? &source->line : &row, 1);
    if (cmyk) cmyk_to_rgb(row, source->line, image->w, info->saw_Adobe_marker);
  }
  const bool whole = has_every_scan(info);
  (void)jpeg_finish_decompress(info);
  if (!source->ended || whole) return true;
  (void)snprintf(source->text, sizeof source->text, "the file ends before its last scan");
  return false;
}

static NitiStatus decode_jpeg(Source *source) {
  struct jpeg_decompress_struct info = {0};
  struct jpeg_error_mgr errors;
  info.err = jpeg_std_error(&errors);
  errors.error_exit = jpeg_escape; /* nothing else than the two that are replaced would print a message */
  errors.emit_message = jpeg_message;
  struct jpeg_progress_mgr progress = {.progress_monitor = limit_scans};
  info.client_data = source;
  const bool good = run_jpeg(source, &info, &progress);
  jpeg_destroy_decompress(&info);
  if (good) return NITI_OK;
  if (source->status) return source->status;
  if (lacks_memory(source)) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for the JPEG decoder", source->path);
  return niti_fail(NITI_ERROR_FORMAT, "%s: not a sound JPEG: %s", source->path, source->text);
}

/* ---- PNG ---- */

static void png_escape(png_structp png, png_const_charp text) {
  Source *source = png_get_error_ptr(png);
  (void)snprintf(source->text, sizeof source->text, "%s", text);
  longjmp(source->escape, 1);
}

static void png_silence(png_structp png, png_const_charp text) {
  (void)png;
  (void)text;
}

static void png_supply(png_structp png, png_bytep out, size_t count) {
  Source *source = png_get_io_ptr(png);
  if (count > source->size - source->position) png_error(png, "the file ends too early");
  memcpy(out, source->bytes + source->position, count);
  source->position += count;
}

static uint32_t big_endian(const uint8_t *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

/* Whether all chunks up to IEND are there and, with `sums`, have the checksums that they state. */
static bool has_png_chunks(const uint8_t *bytes, size_t size, bool sums) {
  for (size_t at = 8; size - at >= 12;) {
    const uint32_t length = big_endian(bytes + at);
    if (length > size - at - 12) return false;
    const uint8_t *chunk = bytes + at + 4, *sum = chunk + 4 + length;
    if (sums && (uint32_t)crc32(crc32(0, NULL, 0), chunk, length + 4) != big_endian(sum)) return false;
    if (memcmp(chunk, "IEND", 4) == 0) return true;
    at += length + 12;
  }
  return false;
}

/* Chunks of packed text that nothing here reads. */
static const png_byte packed_chunks[] = "zTXt\0iTXt\0iCCP";

static bool run_png(Source *source, png_structp png, png_infop info) {
  png_bytep exif = NULL;
  png_uint_32 size = 0;
  if (setjmp(source->escape)) return false;
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, packed_chunks, sizeof packed_chunks / 5); /* each may unpack to 8 MB */
  png_set_read_fn(png, source, png_supply);
  /* libpng asks for as much memory as a chunk's length says before it reads the chunk */
  if (!has_png_chunks(source->bytes, source->size, false)) png_error(png, "the file ends too early");
  png_read_info(png, info);
  const uint64_t packed_line = png_get_rowbytes(png, info);
  png_set_expand(png); /* palettes, less than 8 bits, transparent colours */
  png_set_scale_16(png);
  png_set_strip_alpha(png);
  (void)png_set_interlace_handling(png);
  const bool colour = (png_get_color_type(png, info) & PNG_COLOR_MASK_COLOR) != 0;
  const uint64_t h = png_get_image_height(png, info), w = png_get_image_width(png, info);
  const bool possible = h * packed_line <= (uint64_t)source->size * DEFLATE_RATIO_MAX;
  if (!reserve_pixels(source, h, w, colour ? 3 : 1, possible)) return false;
  if (source->header_only) return true;
  NitiImage *image = source->image;
  const size_t stride = (size_t)image->w * (size_t)image->c;
  png_read_update_info(png, info);
  if (png_get_rowbytes(png, info) != stride) png_error(png, "unexpected line size");
  source->lines = malloc((size_t)image->h * sizeof *source->lines);
  if (!source->lines) {
    source->status = niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for %d lines", source->path, image->h);
    return false;
  }
  for (int32_t y = 0; y < image->h; ++y) source->lines[y] = image->pixels + (size_t)y * stride;
  png_read_image(png, source->lines);
  png_read_end(png, info); /* eXIf may follow the pixels */
  if (png_get_eXIf_1(png, info, &size, &exif) != 0) source->orientation = niti_exif_orientation(exif, size);
  return true;
}

static NitiStatus decode_png(Source *source) {
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, source, png_escape, png_silence);
  png_infop info = png ? png_create_info_struct(png) : NULL;
  const bool good = info && run_png(source, png, info);
  const bool memory = info != NULL;
  if (png) png_destroy_read_struct(&png, &info, NULL);
  if (good) return NITI_OK;
  if (!memory) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for the PNG decoder", source->path);
  if (source->status) return source->status;
  if (lacks_memory(source)) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for the PNG decoder", source->path);
  return niti_fail(NITI_ERROR_FORMAT, "%s: not a sound PNG: %s", source->path, source->text);
}

/* ---- both ---- */

static void to_grey(NitiImage *image) {
  const size_t count = (size_t)image->h * (size_t)image->w;
  const uint8_t *in = image->pixels;
  for (size_t i = 0; i < count; ++i, in += 3)
    image->pixels[i] = (uint8_t)((19595u * in[0] + 38470u * in[1] + 7471u * in[2] + 32768u) >> 16);
  image->c = 1;
}

static bool is_png(const uint8_t *bytes, size_t size) {
  static const uint8_t png[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  return size >= sizeof png && memcmp(bytes, png, sizeof png) == 0;
}

/* The content decides, not the name: sets from the web hold PNGs called .jpg. */
static NitiStatus decode_any(Source *source) {
  static const uint8_t jpeg[] = {0xff, 0xd8, 0xff};
  if (is_png(source->bytes, source->size)) return decode_png(source);
  if (source->size >= sizeof jpeg && memcmp(source->bytes, jpeg, sizeof jpeg) == 0) return decode_jpeg(source);
  return niti_fail(NITI_ERROR_FORMAT, "%s: byte 0: neither a JPEG nor a PNG file%s", source->path,
                   source->size == 0 ? " (it is empty)" : "");
}

/* Whether an end marker is among the last bytes: some cameras append a few. */
static bool has_jpeg_end(const uint8_t *bytes, size_t size) {
  enum { TAIL = 64 };
  for (size_t i = size > TAIL ? size - TAIL : 0; i + 1 < size; ++i) {
    if (bytes[i] == 0xff && bytes[i + 1] == 0xd9) return true;
  }
  return false;
}

NitiStatus niti_image_glance(const uint8_t *bytes, size_t size, const char *name) {
  NitiImage image = {0};
  Source source = {.path = name, .bytes = bytes, .size = size, .image = &image, .header_only = true};
  NITI_TRY(decode_any(&source));
  if (is_png(bytes, size) ? has_png_chunks(bytes, size, true) : has_jpeg_end(bytes, size)) return NITI_OK;
  const NitiStatus status = niti_image_decode(&image, bytes, size, name, 3); /* whether that matters, and what it is called */
  free(image.pixels);
  return status;
}

NitiStatus niti_image_decode(NitiImage *out, const uint8_t *bytes, size_t size, const char *name, int32_t channels) {
  memset(out, 0, sizeof *out);
  Source source = {.path = name, .bytes = bytes, .size = size, .image = out, .orientation = 1};
  NitiStatus status = decode_any(&source);
  free(source.line);
  free(source.lines);
  if (status == NITI_OK && channels == 1 && out->c == 3) to_grey(out);
  if (status == NITI_OK) status = niti_image_turn(out, source.orientation, name);
  if (status == NITI_OK) return NITI_OK;
  free(out->pixels);
  memset(out, 0, sizeof *out);
  return status;
}

NitiStatus niti_image_load(NitiImage *out, const char *path, int32_t channels) {
  char *bytes = NULL;
  size_t size = 0;
  memset(out, 0, sizeof *out);
  NITI_TRY(niti_file_read(&bytes, &size, path, NITI_IMAGE_BYTES_MAX));
  const NitiStatus status = niti_image_decode(out, (const uint8_t *)bytes, size, path, channels);
  free(bytes);
  return status;
}

NitiStatus niti_image_glance_at(const char *path) {
  char *bytes = NULL;
  size_t size = 0;
  NITI_TRY(niti_file_read(&bytes, &size, path, NITI_IMAGE_BYTES_MAX));
  const NitiStatus status = niti_image_glance((const uint8_t *)bytes, size, path);
  free(bytes);
  return status;
}

static NitiStatus fit_centre(uint8_t *out, const NitiImage *image, const NitiDataOptions *options, NitiShape size,
                             const char *name) {
  const NitiWindow window = {.centre = true};
  const NitiStatus status = niti_image_fit(out, image, options, size, window, name);
  free(image->pixels);
  return status;
}

static const NitiDataOptions plain;

NitiStatus niti_image_read(const char *path, const NitiDataOptions *options, NitiShape size, uint8_t *out) {
  NitiImage image;
  if (!options) options = &plain;
  NITI_TRY(niti_data_options_check(options));
  NITI_TRY(niti_fit_check(options, size));
  NITI_TRY(niti_image_load(&image, path, size.c));
  return fit_centre(out, &image, options, size, path);
}

NitiStatus niti_image_read_bytes(const uint8_t *bytes, size_t count, const char *name, const NitiDataOptions *options,
                                 NitiShape size, uint8_t *out) {
  NitiImage image;
  if (!options) options = &plain;
  NITI_TRY(niti_data_options_check(options));
  NITI_TRY(niti_fit_check(options, size));
  NITI_TRY(niti_image_decode(&image, bytes, count, name, size.c));
  return fit_centre(out, &image, options, size, name);
}
