// Checks the two blocks against vectors that `niti vectors` wrote as hex: +COUNT accumulators (+SUMS) at +SHIFT must become +RESULTS; and +LENGTH products
// of +A and +B must sum to the one value in +SUM. Prints "passed N", or the first element that differs, or what is missing: a file, a value in it, an argument.
// Icarus Verilog then exits with status 1.
`timescale 1ns / 1ns
module bench;
  reg [32767:0] name;
  integer count, length, shifted, i, first, second, third, taken;
  reg failed = 0, clock = 0, clear = 1, enable = 0;
  reg [31:0] value;
  reg signed [7:0] x, y;
  reg signed [31:0] sum;
  reg [4:0] shift;
  wire signed [31:0] total;
  wire signed [7:0] result;
  multiply_accumulate mac (.clock(clock), .clear(clear), .enable(enable), .a(x), .b(y), .sum(total));
  requantise rounder (.sum(sum), .shift(shift), .result(result));

  task fail;
    begin
      failed = 1;
`ifdef __ICARUS__
      $finish_and_return(1);
`else
      $finish;
`endif
    end
  endtask

  // Value i of a file, of so many bits: an x in it, or its end, would agree with anything.
  task take(input integer file, input integer i, input integer bits);
    begin
      value = 0;
      taken = $fscanf(file, "%h", value);
      if (taken != 1 || (^value) === 1'bx || (value >> (bits - 1)) >> 1 != 0) begin
        $display("element %0d: a file has no hexadecimal value of %0d bits for it", i, bits);
        fail;
      end
    end
  endtask

  task take_end(input integer file, input integer i);
    begin
      taken = $fscanf(file, "%h", value);
      if (taken == 1) begin
        $display("a file has more than %0d values", i);
        fail;
      end
    end
  endtask

  task open(output integer file, input given);
    begin
      file = given ? $fopen(name, "r") : 0;
      if (file == 0) begin
        if (given) $display("cannot open %0s", name);
        else $display("expected +COUNT=N +SHIFT=N +SUMS=FILE +RESULTS=FILE, or +LENGTH=N +A=FILE +B=FILE +SUM=FILE, N above 0 (SHIFT: 0 to 31)");
        fail;
      end
    end
  endtask

  task check_results;
    begin
      if (!$value$plusargs("SHIFT=%d", shifted)) shifted = -1;
      open(first, count > 0 && shifted >= 0 && shifted <= 31 && $value$plusargs("SUMS=%s", name));
      if (!failed) open(second, $value$plusargs("RESULTS=%s", name));
      shift = shifted;
      for (i = 0; i < count && !failed; i = i + 1) begin
        take(first, i, 32);
        sum = value;
        if (!failed) take(second, i, 8);
        #1;
        if (!failed && result !== $signed(value[7:0])) begin
          $display("element %0d: %0d at shift %0d gave %0d, expected %0d", i, sum, shift, result, $signed(value[7:0]));
          fail;
        end
      end
      if (!failed) take_end(first, count);
      if (!failed) take_end(second, count);
    end
  endtask

  task check_sum;
    begin
      open(first, length > 0 && $value$plusargs("A=%s", name));
      if (!failed) open(second, $value$plusargs("B=%s", name));
      if (!failed) open(third, $value$plusargs("SUM=%s", name));
      #1 clock = 1;
      #1 clock = 0;
      clear = 0;
      enable = 1;
      for (i = 0; i < length && !failed; i = i + 1) begin
        take(first, i, 8);
        x = value[7:0];
        if (!failed) take(second, i, 8);
        y = value[7:0];
        #1 clock = 1;
        #1 clock = 0;
      end
      if (!failed) take_end(first, length);
      if (!failed) take_end(second, length);
      if (!failed) take(third, 0, 32);
      if (!failed && total !== $signed(value)) begin
        $display("the sum of %0d products is %0d, expected %0d", length, total, $signed(value));
        fail;
      end
    end
  endtask

  initial begin
    if (!$value$plusargs("COUNT=%d", count)) count = 0;
    if (!$value$plusargs("LENGTH=%d", length)) length = 0;
    if (count !== 0 || length === 0) check_results;
    if (length !== 0 && !failed) check_sum;
    if (!failed) $display("passed %0d", count + length);
    if (!failed) $finish;
  end
endmodule
