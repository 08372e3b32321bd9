/* Draws pictures and encodes them. */
#include "io/picture.h"

#include <png.h>
#include <stdlib.h>
#include <string.h>

/* Letters of 3 by 5 pixels: one octal digit per row, from top to bottom. From the space to the underscore. */
static const uint16_t letters[] = {
    000000, 022202, 055000, 057575, 036736, 051245, 025253, 022000, 012221, 042224, 052725, 002720, 000024,
    000700, 000002, 011244, 075557, 026227, 071747, 071717, 055711, 074717, 074757, 071122, 075757, 075717,
    002020, 002024, 012421, 007070, 042124, 071302, 075747, 025755, 065656, 034443, 065556, 074647, 074644,
    034553, 055755, 072227, 011152, 055655, 044447, 057755, 065555, 025552, 065644, 025573, 065655, 034216,
    072222, 055557, 055552, 055775, 055255, 055222, 071247, 032223, 044211, 062226, 025000, 000007,
};

NitiStatus niti_picture_open(NitiPicture *out, int32_t width, int32_t height, uint32_t colour) {
  *out = (NitiPicture){0};
  if (width < 1 || height < 1 || width > NITI_PICTURE_SIDE_MAX || height > NITI_PICTURE_SIDE_MAX)
    return niti_fail(NITI_ERROR_ARGUMENT, "a picture of %dx%d pixels (expected 1 to %d each)", width, height,
                     NITI_PICTURE_SIDE_MAX);
  out->rgb = malloc((size_t)width * (size_t)height * 3);
  if (!out->rgb) return niti_fail(NITI_ERROR_MEMORY, "out of memory for a picture of %dx%d pixels", width, height);
  out->width = width;
  out->height = height;
  niti_picture_fill(out, 0, 0, width, height, colour);
  return NITI_OK;
}

void niti_picture_close(NitiPicture *picture) {
  free(picture->rgb);
  *picture = (NitiPicture){0};
}

void niti_picture_fill(NitiPicture *p, int32_t x, int32_t y, int32_t width, int32_t height, uint32_t colour) {
  for (int32_t row = y < 0 ? 0 : y; row < y + height && row < p->height; ++row) {
    for (int32_t column = x < 0 ? 0 : x; column < x + width && column < p->width; ++column) {
      uint8_t *pixel = p->rgb + ((size_t)row * (size_t)p->width + (size_t)column) * 3;
      for (int c = 0; c < 3; ++c) pixel[c] = (uint8_t)(colour >> (16 - 8 * c));
    }
  }
}

static void draw_letter(NitiPicture *p, int32_t x, int32_t y, int32_t scale, uint32_t colour, unsigned char letter) {
  if (letter >= 'a' && letter <= 'z') letter = (unsigned char)(letter - 'a' + 'A');
  const uint16_t rows = letters[letter < ' ' || letter > '_' ? '?' - ' ' : letter - ' '];
  for (int i = 0; i < 15; ++i) {
    if (rows >> (14 - i) & 1) niti_picture_fill(p, x + i % 3 * scale, y + i / 3 * scale, scale, scale, colour);
  }
}

void niti_picture_text(NitiPicture *p, int32_t x, int32_t y, int32_t scale, uint32_t colour, const char *text, int32_t most) {
  for (int32_t i = 0; *text && i < most; ++text) {
    if (((unsigned char)*text & 0xc0) == 0x80) continue; /* within a character */
    draw_letter(p, x + i++ * NITI_LETTER_WIDTH * scale, y, scale, colour, (unsigned char)*text);
  }
}

void niti_picture_image(NitiPicture *p, int32_t x, int32_t y, int32_t scale, const uint8_t *pixels, int32_t height, int32_t width,
                        int32_t channels) {
  for (int32_t row = 0; row < height; ++row) {
    for (int32_t column = 0; column < width; ++column, pixels += channels) {
      const int last = channels - 1;
      const uint32_t colour = (uint32_t)pixels[0] << 16 | (uint32_t)pixels[last / 2] << 8 | pixels[last];
      niti_picture_fill(p, x + column * scale, y + row * scale, scale, scale, colour);
    }
  }
}

NitiStatus niti_picture_png(uint8_t **out, size_t *size, const NitiPicture *p) {
  png_image image = {
      .version = PNG_IMAGE_VERSION, .format = PNG_FORMAT_RGB, .width = (uint32_t)p->width, .height = (uint32_t)p->height};
  png_alloc_size_t room = PNG_IMAGE_PNG_SIZE_MAX(image);
  *out = malloc(room);
  if (!*out) return niti_fail(NITI_ERROR_MEMORY, "out of memory for a picture of %dx%d pixels", p->width, p->height);
  if (png_image_write_to_memory(&image, *out, &room, 0, p->rgb, 0, NULL)) {
    *size = room;
    return NITI_OK;
  }
  free(*out);
  *out = NULL;
  return niti_fail(NITI_ERROR_MEMORY, "a picture of %dx%d pixels: %s", p->width, p->height, image.message);
}
