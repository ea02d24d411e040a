"""The course: versions of the lessons for students, solutions and instructors, and checks of their answers."""
