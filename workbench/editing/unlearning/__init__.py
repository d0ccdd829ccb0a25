"""What unlearning methods share that teach no answer: representations, the columns that move, where steps may go."""
