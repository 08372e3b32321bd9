/* AVX-512 VNNI: vpdpbusd multiplies unsigned by signed bytes, so activations are offset by 128 and each sum starts with what
 * takes that back (modulo 2^32, which is exact). Activations of which none is negative are unsigned as they are. */
#include "backend/cpu/x86/conv_avx2.h"
#include "backend/cpu/x86/tile_avx512.h"

/* All but the operand elements of activations. */
#define BOTH                                                                                                           \
  .name = "avx512vnni 6x64 direct", .element = 1, .group = 4, .lanes = LANES, .vectors = 4, .rows = {0, 12, 12, 8, 6}, \
  .tile = tile, .panel_across = niti_panel_across_8x4_avx2, .panel_along = niti_panel_along_8x4, .masks = true,        \
  .requantise = niti_requantise_tile_avx512, .store = niti_gradient_store_avx2

static const NitiConvKernels positive = {
    BOTH, .in_place = true, .convert = niti_convert_s8_avx2, .zero = niti_zero_s8_avx2, .transpose = niti_transpose_s8_avx2,
};

const NitiConvKernels niti_conv_kernels_avx512vnni = {
    BOTH,
    .offset = true,
    .positive = &positive,
    .convert = niti_convert_8_avx2,
    .zero = niti_zero_8_avx2,
    .transpose = niti_transpose_8_avx2,
};
