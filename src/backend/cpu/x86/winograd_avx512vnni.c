/* Winograd by AVX-512: vpdpwssd sums pairs of int16 products without saturation. */
#include "backend/cpu/winograd.h"
#include "backend/cpu/winograd_vector.h"
#include "backend/cpu/x86/conv_avx2.h"

enum { ELEMENT = 2 };
#include "backend/cpu/x86/tile_avx512.h"

static uint64_t transform_input(int16_t *v, size_t stride, const int8_t *const *in, size_t channels) {
  return niti_winograd_input_tile(v, stride, in, channels);
}

static void transform_weights(int16_t *u, size_t stride, const int16_t *w, size_t tap_stride, size_t groups, int columns,
                              int32_t *magnitudes, int32_t *squares) {
  niti_winograd_weights_panel(u, stride, w, tap_stride, groups, columns, magnitudes, squares);
}

static void transform_output(int32_t *acc, size_t acc_stride, const int32_t *m, size_t stride, int columns, bool add) {
  if (add)
    niti_winograd_output_tile(acc, acc_stride, m, stride, columns, true);
  else
    niti_winograd_output_tile(acc, acc_stride, m, stride, columns, false);
}

/* Worth: both drivers timed in turn on one core of an Ice Lake server, least of 7 runs, 16 to 512 channels, images of 2x2 to
 * 32x32, batches of 1 to 64. 128 -> 128 gains 1.1 at 64 tiles and 1.3 and more at 1,024 and 4,096; 64 -> 64 loses 2 to 15 %; 512
 * -> 512 gains 1.1 at 64 tiles of 4x4 images and loses at 16; 7x7 images (77 % of their tiles) gain nothing. */
const NitiWinogradKernels niti_winograd_kernels_avx512vnni = {
    .name = "avx512vnni winograd 4x4",
    .worth = {.channels = 128, .tiles = 64, .percent = 85},
    .channels = NITI_VECTOR_SHORTS,
    .lanes = LANES,
    .vectors = 4,
    .rows = {0, 12, 12, 8, 6},
    .tile = tile,
    .panel_across = niti_panel_across_16x2_avx2,
    .panel_along = niti_panel_along_16x2_avx2,
    .masks = true,
    .requantise = niti_requantise_tile_avx512,
    .input = transform_input,
    .weights = transform_weights,
    .output = transform_output,
};
